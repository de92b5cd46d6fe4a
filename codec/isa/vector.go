package isa

// The rows of VEX, EVEX and XOP.

var vex1 = []row{
	{p0 | p66 | l128 | l256, AVX, wR | rM, 0, "10 28 51"},                              // vmovupd/vmovups
	{pf3 | pf2 | mem, AVX, wRx, 0, "10"},                                               // vmovsd/vmovss
	{pf3 | pf2 | reg, AVX, wRx | rVx | rMx, 0, "10"},                                   // vmovsd/vmovss
	{p0 | p66 | l128 | l256, AVX, rR | wM, 0, "11 29"},                                 // vmovupd/vmovups
	{pf3 | pf2 | mem, AVX, rRx, 0, "11"},                                               // vmovsd/vmovss
	{pf3 | pf2 | reg, AVX, rRx | rVx | wMx, 0, "11"},                                   // vmovsd/vmovss
	{p0 | l128 | reg, AVX, wRx | rVx | rMx, 0, "12 16"},                                // vmovhlps
	{p0 | p66 | l128 | mem, AVX, wRx | rVx, 0, "12 16"},                                // vmovlpd/vmovlps
	{pf3 | pf2 | l128 | l256, AVX, wR | rM, 0, "12"},                                   // vmovddup/vmovsldup
	{p0 | p66 | l128 | mem, AVX, rRx, 0, "13 17"},                                      // vmovlpd/vmovlps
	{p0 | p66 | l128 | l256, AVX, wR | rV | rM, 0, "14 15 54 55 56 58 59 5c 5d 5e 5f"}, // vunpcklpd/vunpcklps
	{pf3 | l128 | l256, AVX, wR | rM, 0, "16"},                                         // vmovshdup
	{pf3 | pf2, AVX, wRx | rVx, 0, "2a"},                                               // vcvtsi2sd/vcvtsi2ss
	{p0 | p66 | l128 | l256 | mem, AVX, rR, 0, "2b"},                                   // vmovntpd/vmovntps
	{pf3 | pf2, AVX, rMx, 0, "2c 2d"},                                                  // vcvttsd2si/vcvttss2si
	{p0 | p66, AVX, rRx | rMx, 0, "2e 2f"},                                             // vucomisd/vucomiss
	{p0&w0 | l256 | reg, AVX512F, wRk | rVk | rMk, 0, "41 42 45 46 47"},                // kandw
	{p0&w1 | p66&w1 | l256 | reg, AVX512BW, wRk | rVk | rMk, 0, "41 42 45 46 47 4a"},   // kandd/kandq
	{p66&w0 | l256 | reg, AVX512DQ, wRk | rVk | rMk, 0, "41 42 45 46 47"},              // kandb
	{p0&w0 | l128 | reg, AVX512F, wRk | rMk, 0, "44"},                                  // knotw
	{p0&w1 | p66&w1 | l128 | reg, AVX512BW, wRk | rMk, 0, "44"},                        // knotd/knotq
	{p66&w0 | l128 | reg, AVX512DQ, wRk | rMk, 0, "44"},                                // knotb
	{p0&w0 | p66&w0 | l256 | reg, AVX512DQ, wRk | rVk | rMk, 0, "4a"},                  // kaddb/kaddw
	{p0 | l256 | reg, AVX512BW, wRk | rVk | rMk, 0, "4b"},                              // kunpckdq/kunpckwd
	{p66&w0 | l256 | reg, AVX512F, wRk | rVk | rMk, 0, "4b"},                           // kunpckbw
	{p0 | p66 | l128 | l256 | reg, AVX, rM, 0, "50"},                                   // vmovmskpd/vmovmskps
	{pf3 | pf2, AVX, wRx | rVx | rMx, 0, "51 58 59 5a 5c 5d 5e 5f"},                    // vsqrtsd/vsqrtss
	{p0 | l128 | l256, AVX, wR | rM, 0, "52 53"},                                       // vrsqrtps
	{pf3, AVX, wRx | rVx | rMx, 0, "52 53"},                                            // vrsqrtss
	{p0 | p66 | l128 | l256, AVX, wR | rV | rM, idiom, "57"},                           // vxorpd/vxorps
	{p0 | l128 | l256, AVX, wR | rMx, 0, "5a"},                                         // vcvtps2pd
	{p66 | l128 | l256, AVX, wRx | rM, 0, "5a"},                                        // vcvtpd2ps
	{p0 | p66 | pf3 | l128 | l256, AVX, wR | rM, 0, "5b"},                              // vcvtdq2ps/vcvtps2dq/vcvttps2dq
	{p66 | l128 | l256, AVX, wR | rV | rM, wide2, "60 61 62 63 64 65 66 67 68 69 6a 6b 6c 6d 74 75 76 d4 d5 da db dc dd de df e0 e3 e4 e5 ea eb ec ed ee f4 f5 f6 fc fd fe"}, // vpunpcklbw
	{p66 | l128, AVX, wRx, 0, "6e"},                                                     // vmovd/vmovq
	{p66 | pf3 | l128 | l256, AVX, wR | rM, 0, "6f"},                                    // vmovdqa/vmovdqu
	{p66 | pf3 | pf2 | l128 | l256, AVX, wR | rM, wide2 | imm8, "70"},                   // vpshufd/vpshufhw/vpshuflw
	{p66 | l128 | l256 | reg | r2 | r4 | r6, AVX, wV | rM, wide2 | imm8, "71 72"},       // vpsllw/vpsraw/vpsrlw
	{p66 | l128 | l256 | reg | r2 | r3 | r6 | r7, AVX, wV | rM, wide2 | imm8, "73"},     // vpslldq/vpsllq/vpsrldq/vpsrlq
	{p0 | l128, AVX, 0, special, "77"},                                                  // vzeroupper
	{p0 | l256, AVX, 0, special, "77"},                                                  // vzeroall
	{p66 | pf2 | l128 | l256, AVX, wR | rV | rM, 0, "7c 7d d0"},                         // vhaddpd/vhaddps
	{p66 | l128, AVX, rRx, 0, "7e"},                                                     // vmovd/vmovq
	{pf3 | l128, AVX, wRx | rMx, 0, "7e"},                                               // vmovq
	{p66 | pf3 | l128 | l256, AVX, rR | wM, 0, "7f"},                                    // vmovdqa/vmovdqu
	{p0&w0 | l128, AVX512F, wRk | rMk, 0, "90"},                                         // kmovw
	{p0&w1 | p66&w1 | l128, AVX512BW, wRk | rMk, 0, "90"},                               // kmovd/kmovq
	{p66&w0 | l128, AVX512DQ, wRk | rMk, 0, "90"},                                       // kmovb
	{p0&w0 | l128 | mem, AVX512F, rRk, 0, "91"},                                         // kmovw
	{p0&w1 | p66&w1 | l128 | mem, AVX512BW, rRk, 0, "91"},                               // kmovd/kmovq
	{p66&w0 | l128 | mem, AVX512DQ, rRk, 0, "91"},                                       // kmovb
	{p0&w0 | l128 | reg, AVX512F, wRk, 0, "92"},                                         // kmovw
	{p66&w0 | l128 | reg, AVX512DQ, wRk, 0, "92"},                                       // kmovb
	{pf2 | l128 | reg, AVX512BW, wRk, 0, "92"},                                          // kmovd/kmovq
	{p0&w0 | l128 | reg, AVX512F, rMk, 0, "93"},                                         // kmovw
	{p66&w0 | l128 | reg, AVX512DQ, rMk, 0, "93"},                                       // kmovb
	{pf2 | l128 | reg, AVX512BW, rMk, 0, "93"},                                          // kmovd/kmovq
	{p0&w0 | l128 | reg, AVX512F, rRk | rMk, 0, "98"},                                   // kortestw
	{p0&w1 | p66&w1 | l128 | reg, AVX512BW, rRk | rMk, 0, "98 99"},                      // kortestd/kortestq
	{p66&w0 | l128 | reg, AVX512DQ, rRk | rMk, 0, "98"},                                 // kortestb
	{p0&w0 | p66&w0 | l128 | reg, AVX512DQ, rRk | rMk, 0, "99"},                         // ktestb/ktestw
	{p0 | l128 | mem | r2 | r3, AVX, 0, 0, "ae"},                                        // vldmxcsr/vstmxcsr
	{p0 | p66 | l128 | l256, AVX, wR | rV | rM, imm8, "c2 c6"},                          // vcmppd/vcmpps
	{pf3 | pf2, AVX, wRx | rVx | rMx, imm8, "c2"},                                       // vcmpsd/vcmpss
	{p66 | l128, AVX, wRx | rVx, imm8, "c4"},                                            // vpinsrw
	{p66 | l128 | reg, AVX, rMx, imm8, "c5"},                                            // vpextrw
	{p66 | l128 | l256, AVX, wR | rV | rMx, wide2, "d1 d2 d3 e1 e2 f1 f2 f3"},           // vpsrlw
	{p66 | l128, AVX, rRx | wMx, 0, "d6"},                                               // vmovq
	{p66 | l128 | l256 | reg, AVX, rM, wide2, "d7"},                                     // vpmovmskb
	{p66 | l128 | l256, AVX, wR | rV | rM, wide2 | idiom, "d8 d9 e8 e9 ef f8 f9 fa fb"}, // vpsubusb
	{p66 | pf2 | l128 | l256, AVX, wRx | rM, 0, "e6"},                                   // vcvtpd2dq/vcvttpd2dq
	{pf3 | l128 | l256, AVX, wR | rMx, 0, "e6"},                                         // vcvtdq2pd
	{p66 | l128 | l256 | mem, AVX, rR, 0, "e7"},                                         // vmovntdq
	{pf2 | l128 | l256 | mem, AVX, wR, 0, "f0"},                                         // vlddqu
	{p66 | l128 | reg, AVX, rRx | rMx, 0, "f7"},                                         // vmaskmovdqu
}

var vex2 = []row{
	{p66 | l128 | l256, AVX, wR | rV | rM, wide2, "00 01 02 03 04 05 06 07 08 09 0a 0b 28 29 2b 37 38 39 3a 3b 3c 3d 3e 3f 40"}, // vpshufb
	{p66&w0 | l128 | l256, AVX, wR | rV | rM, 0, "0c 0d"},                                                                       // vpermilps
	{p66&w0 | l128 | l256, AVX, rR | rM, 0, "0e 0f"},                                                                            // vtestps
	{p66&w0 | l128 | l256, F16C, wR | rMx, 0, "13"},                                                                             // vcvtph2ps
	{p66&w0 | l256, AVX2, wR | rV | rM, 0, "16 36"},                                                                             // vpermps
	{p66 | l128 | l256, AVX, rR | rM, 0, "17"},                                                                                  // vptest
	{p66&w0 | l128 | l256 | mem, AVX, wR, 0, "18"},                                                                              // vbroadcastss
	{p66&w0 | l128 | l256 | reg, AVX2, wR | rMx, 0, "18"},                                                                       // vbroadcastss
	{p66&w0 | l256 | mem, AVX, wR, 0, "19 1a"},                                                                                  // vbroadcastsd
	{p66&w0 | l256 | reg, AVX2, wR | rMx, 0, "19"},                                                                              // vbroadcastsd
	{p66 | l128 | l256, AVX, wR | rM, wide2, "1c 1d 1e"},                                                                        // vpabsb
	{p66 | l128 | l256, AVX, wR | rMx, wide2, "20 21 22 23 24 25 30 31 32 33 34 35"},                                            // vpmovsxbw
	{p66 | l128 | l256 | mem, AVX, wR, wide2, "2a"},                                                                             // vmovntdqa
	{p66&w0 | l128 | l256 | mem, AVX, wR | rV, 0, "2c 2d"},                                                                      // vmaskmovps
	{p66&w0 | l128 | l256 | mem, AVX, rR | rV, 0, "2e 2f"},                                                                      // vmaskmovps
	{p66 | l128, AVX, wRx | rMx, 0, "41"},                                                                                       // vphminposuw
	{p66 | l128 | l256, AVX2, wR | rV | rM, 0, "45 47"},                                                                         // vpsrlvd/vpsrlvq
	{p66&w0 | l128 | l256, AVX2, wR | rV | rM, 0, "46"},                                                                         // vpsravd
	{p0&w0 | p66&w0 | l128 | mem | r0, AMXTile, 0, 0, "49"},                                                                     // ldtilecfg/sttilecfg
	{pf2&w0 | l128 | reg, AMXTile, 0, rm0, "49"},                                                                                // tilezero
	{p66&w0 | pf3&w0 | pf2&w0 | l128 | mem, AMXTile, 0, sib, "4b"},                                                              // tileloadd/tileloaddt1/tilestored
	{p0&w0 | pf3&w0 | pf2&w0 | l128 | l256, AVXVNNIInt8, mR | rV | rM, 0, "50 51"},                                              // vpdpbssd/vpdpbsud/vpdpbuud
	{p66&w0 | l128 | l256, AVXVNNI, mR | rV | rM, 0, "50 51 52 53"},                                                             // vpdpbusd
	{p66&w0 | l128 | l256, AVX2, wR | rMx, 0, "58 59 78 79"},                                                                    // vpbroadcastd
	{p66&w0 | l256 | mem, AVX2, wR, 0, "5a"},                                                                                    // vbroadcasti128
	{pf2&w0 | l128 | reg, AMXFP16, 0, uniq | gv, "5c"},                                                                          // tdpfp16ps
	{pf3&w0 | l128 | reg, AMXBF16, 0, uniq | gv, "5c"},                                                                          // tdpbf16ps
	{w0 | l128 | reg, AMXInt8, 0, uniq | gv, "5e"},                                                                              // tdpbssd/tdpbsud/tdpbusd/tdpbuud
	{p0&w0 | p66&w0 | l128 | reg, AMXComplex, 0, uniq | gv, "6c"},                                                               // tcmmimfp16ps/tcmmrlfp16ps
	{pf3&w0 | l128 | l256, AVXNEConvert, wRx | rM, 0, "72"},                                                                     // vcvtneps2bf16
	{p66 | l128 | l256 | mem, AVX2, wR | rV, 0, "8c"},                                                                           // vpmaskmovd/vpmaskmovq
	{p66 | l128 | l256 | mem, AVX2, rR | rV, 0, "8e"},                                                                           // vpmaskmovd/vpmaskmovq
	{p66&w0 | l128 | l256 | mem, AVX2, mR | mV | rM, sib | vsib | uniq, "90 92"},                                                // vpgatherdd
	{p66&w1 | l128 | l256 | mem, AVX2, mR | mV | rMx, sib | vsib | uniq, "90 92"},                                               // vpgatherdq
	{p66&w0 | l128 | l256 | mem, AVX2, mRx | mVx | rM, sib | vsib | uniq, "91 93"},                                              // vpgatherqd
	{p66&w1 | l128 | l256 | mem, AVX2, mR | mV | rM, sib | vsib | uniq, "91 93"},                                                // vpgatherqq
	{p66 | l128 | l256, FMA, mR | rV | rM, 0, "96 97 98 9a 9c 9e a6 a7 a8 aa ac ae b6 b7 b8 ba bc be"},                          // vfmaddsub132pd/vfmaddsub132ps
	{p66, FMA, mRx | rVx | rMx, 0, "99 9b 9d 9f a9 ab ad af b9 bb bd bf"},                                                       // vfmadd132sd/vfmadd132ss
	{w0 | l128 | l256 | mem, AVXNEConvert, wR, 0, "b0"},                                                                         // vcvtneebf162ps/vcvtneeph2ps/vcvtneobf162ps/vcvtneoph2ps
	{p66&w0 | pf3&w0 | l128 | l256 | mem, AVXNEConvert, wR, 0, "b1"},                                                            // vbcstnebf162ps/vbcstnesh2ps
	{p66&w1 | l128 | l256, AVXIFMA, mR | rV | rM, 0, "b4 b5"},                                                                   // vpmadd52luq
	{pf2&w0 | l256 | reg, SHA512 | AVX<<8, mR | rV | rMx, 0, "cb"},                                                              // vsha512rnds2
	{pf2&w0 | l256 | reg, SHA512 | AVX<<8, mR | rMx, 0, "cc"},                                                                   // vsha512msg1
	{pf2&w0 | l256 | reg, SHA512 | AVX<<8, mR | rM, 0, "cd"},                                                                    // vsha512msg2
	{p66&w0 | l128 | l256, GFNI | AVX<<8, wR | rV | rM, 0, "cf"},                                                                // vgf2p8mulb
	{p0&w0 | p66&w0 | pf3&w0 | l128 | l256, AVXVNNIInt16, mR | rV | rM, 0, "d2 d3"},                                             // vpdpwsud/vpdpwusd/vpdpwuud
	{p0&w0 | p66&w0 | l128, SM3 | AVX<<8, mRx | rVx | rMx, 0, "da"},                                                             // vsm3msg1/vsm3msg2
	{pf3&w0 | pf2&w0 | l128 | l256, SM4 | AVX<<8, wR | rV | rM, 0, "da"},                                                        // vsm4key4/vsm4rnds4
	{p66 | l128, AES | AVX<<8, wRx | rMx, 0, "db"},                                                                              // vaesimc
	{p66 | l128, AES | AVX<<8, wR | rV | rM, 0, "dc dd de df"},                                                                  // vaesenc
	{p66 | l256, VAES, wR | rV | rM, 0, "dc dd de df"},                                                                          // vaesenc
	{p66 | l128 | mem, CMPCCXADD, 0, gv, "e0 e1 e2 e3 e4 e5 e6 e7 e8 e9 ea eb ec ed ee ef"},                                     // cmpoxadd
	{p0 | l128, BMI1, 0, gv, "f2 f7"},                                                                                           // andn
	{p0 | l128 | r1 | r2 | r3, BMI1, 0, gv, "f3"},                                                                               // blsi/blsmsk/blsr
	{p0 | pf3 | pf2 | l128, BMI2, 0, gv, "f5"},                                                                                  // bzhi/pdep/pext
	{pf2 | l128, BMI2, 0, gv, "f6"},                                                                                             // mulx
	{p66 | pf3 | pf2 | l128, BMI2, 0, gv, "f7"},                                                                                 // sarx/shlx/shrx
	{p0&w0 | l128 | reg | r0, AMXTile, 0, rm0, "49"},                                                                            // tilerelease
}

var vex3 = []row{
	{p66&w1 | l256, AVX2, wR | rM, imm8, "00 01"},                                            // vpermq
	{p66&w0 | l128 | l256, AVX2, wR | rV | rM, imm8, "02"},                                   // vpblendd
	{p66&w0 | l128 | l256, AVX, wR | rM, imm8, "04 05"},                                      // vpermilps
	{p66&w0 | l256, AVX, wR | rV | rM, imm8, "06"},                                           // vperm2f128
	{p66 | l128 | l256, AVX, wR | rM, imm8, "08 09"},                                         // vroundps
	{p66, AVX, wRx | rVx | rMx, imm8, "0a 0b"},                                               // vroundss
	{p66 | l128 | l256, AVX, wR | rV | rM, imm8, "0c 0d 40"},                                 // vblendps
	{p66 | l128 | l256, AVX, wR | rV | rM, wide2 | imm8, "0e 0f 42"},                         // vpblendw
	{p66 | l128, AVX, rRx, imm8, "14 15 16 17"},                                              // vpextrb
	{p66&w0 | l256, AVX, wR | rV | rMx, imm8, "18"},                                          // vinsertf128
	{p66&w0 | l256, AVX, rR | wMx, imm8, "19"},                                               // vextractf128
	{p66&w0 | l128 | l256, F16C, rR | wMx, imm8, "1d"},                                       // vcvtps2ph
	{p66 | l128, AVX, wRx | rVx, imm8, "20 22"},                                              // vpinsrb
	{p66 | l128, AVX, wRx | rVx | rMx, imm8, "21 41"},                                        // vinsertps
	{p66&w0 | l128 | reg, AVX512DQ, wRk | rMk, imm8, "30 32"},                                // kshiftrb
	{p66&w1 | l128 | reg, AVX512F, wRk | rMk, imm8, "30 32"},                                 // kshiftrw
	{p66 | l128 | reg, AVX512BW, wRk | rMk, imm8, "31 33"},                                   // kshiftrd/kshiftrq
	{p66&w0 | l256, AVX2, wR | rV | rMx, imm8, "38"},                                         // vinserti128
	{p66&w0 | l256, AVX2, rR | wMx, imm8, "39"},                                              // vextracti128
	{p66 | l128, PCLMULQDQ | AVX<<8, wR | rV | rM, imm8, "44"},                               // vpclmulqdq
	{p66 | l256, VPCLMULQDQ, wR | rV | rM, imm8, "44"},                                       // vpclmulqdq
	{p66&w0 | l256, AVX2, wR | rV | rM, imm8, "46"},                                          // vperm2i128
	{p66 | l128 | l256, XOP, wR | rV | rM | rI, is4, "48 49"},                                // vpermil2ps
	{p66&w0 | l128 | l256, AVX, wR | rV | rM | rI, is4, "4a 4b"},                             // vblendvps
	{p66&w0 | l128 | l256, AVX, wR | rV | rM | rI, wide2 | is4, "4c"},                        // vpblendvb
	{p66 | l128 | l256, FMA4, wR | rV | rM | rI, is4, "5c 5d 5e 5f 68 69 6c 6d 78 79 7c 7d"}, // vfmaddsubps
	{p66 | l128, AVX, rRx | rMx, imm8 | xmm0, "60 62"},                                       // vpcmpestrm/vpcmpistrm
	{p66 | l128, AVX, rRx | rMx, imm8, "61 63"},                                              // vpcmpestri/vpcmpistri
	{p66, FMA4, wRx | rVx | rMx | rIx, is4, "6a 6b 6e 6f 7a 7b 7e 7f"},                       // vfmaddss
	{p66&w1 | l128 | l256, GFNI | AVX<<8, wR | rV | rM, imm8, "ce cf"},                       // vgf2p8affineqb
	{p66&w0 | l128, SM3 | AVX<<8, mRx | rVx | rMx, imm8, "de"},                               // vsm3rnds2
	{p66 | l128, AES | AVX<<8, wRx | rMx, imm8, "df"},                                        // vaeskeygenassist
	{pf2 | l128, BMI2, 0, imm8, "f0"},                                                        // rorx
}

var evex1 = []row{
	{pspd | lv, AVX512F, wR | rM, vl | mz, "10 28"},                                                                  // vmovupd/vmovups
	{sssd | mem, AVX512F, wRx, mz, "10"},                                                                             // vmovsd/vmovss
	{sssd | reg, AVX512F, wRx | rVx | rMx, mz, "10"},                                                                 // vmovsd/vmovss
	{pspd | lv, AVX512F, rR | wM, vl | mz, "11 29"},                                                                  // vmovupd/vmovups
	{sssd | mem, AVX512F, rRx, mk, "11"},                                                                             // vmovsd/vmovss
	{sssd | reg, AVX512F, rRx | rVx | wMx, mz, "11"},                                                                 // vmovsd/vmovss
	{p0&w0 | l128 | reg, AVX512F, wRx | rVx | rMx, 0, "12 16"},                                                       // vmovhlps
	{pspd | l128 | mem, AVX512F, wRx | rVx, 0, "12 16"},                                                              // vmovlpd/vmovlps
	{sssd | lv, AVX512F, wR | rM, vl | mz, "12"},                                                                     // vmovddup/vmovsldup
	{pspd | l128 | mem, AVX512F, rRx, 0, "13 17"},                                                                    // vmovlpd/vmovlps
	{pspd | lv, AVX512F, wR | rV | rM, vl | bc | mz, "14 15"},                                                        // vunpcklpd/vunpcklps
	{pf3&w0 | lv, AVX512F, wR | rM, vl | mz, "16"},                                                                   // vmovshdup
	{pf3 | pf2, AVX512F, wRx | rVx, rc, "2a 7b"},                                                                     // vcvtsi2sd/vcvtsi2ss
	{pspd | lv | mem, AVX512F, rR, vl, "2b"},                                                                         // vmovntpd/vmovntps
	{pf3 | pf2, AVX512F, rMx, sae | gr, "2c 78"},                                                                     // vcvttsd2si/vcvttss2si
	{pf3 | pf2, AVX512F, rMx, rc | gr, "2d 79"},                                                                      // vcvtsd2si/vcvtss2si
	{pspd, AVX512F, rRx | rMx, sae, "2e 2f"},                                                                         // vucomisd/vucomiss
	{pspd | lv, AVX512F, wR | rM, vl | bc | rc | mz, "51"},                                                           // vsqrtpd/vsqrtps
	{sssd, AVX512F, wRx | rVx | rMx, rc | mz, "51 58 59 5c 5e"},                                                      // vsqrtsd/vsqrtss
	{pspd | lv, AVX512DQ, wR | rV | rM, vl | bc | mz, "54 55 56"},                                                    // vandpd/vandps
	{pspd | lv, AVX512DQ, wR | rV | rM, vl | bc | mz | idiom, "57"},                                                  // vxorpd/vxorps
	{pspd | lv, AVX512F, wR | rV | rM, vl | bc | rc | mz, "58 59 5c 5e"},                                             // vaddpd/vaddps
	{p0&w0 | lv, AVX512F, wR | rMh, vl | bc | sae | mz, "5a"},                                                        // vcvtps2pd
	{p66&w1 | lv, AVX512F, wRh | rM, vl | bc | rc | mz, "5a"},                                                        // vcvtpd2ps
	{pf2 & w1, AVX512F, wRx | rVx | rMx, rc | mz, "5a"},                                                              // vcvtsd2ss
	{pf3 & w0, AVX512F, wRx | rVx | rMx, sae | mz, "5a"},                                                             // vcvtss2sd
	{p0&w0 | p66&w0 | lv, AVX512F, wR | rM, vl | bc | rc | mz, "5b"},                                                 // vcvtdq2ps/vcvtps2dq
	{p0&w1 | lv, AVX512DQ, wRh | rM, vl | bc | rc | mz, "5b"},                                                        // vcvtqq2ps
	{pf3&w0 | lv, AVX512F, wR | rM, vl | bc | sae | mz, "5b"},                                                        // vcvttps2dq
	{pspd | lv, AVX512F, wR | rV | rM, vl | bc | sae | mz, "5d 5f"},                                                  // vminpd/vminps
	{sssd, AVX512F, wRx | rVx | rMx, sae | mz, "5d 5f"},                                                              // vminsd/vminss
	{p66 | lv, AVX512BW, wR | rV | rM, vl | mz, "60 61 63 67 68 69 d5 da dc dd de e0 e3 e4 e5 ea ec ed ee f5 fc fd"}, // vpunpcklbw
	{p66&w0 | lv, AVX512F, wR | rV | rM, vl | bc | mz, "62 6a fe"},                                                   // vpunpckldq
	{p66 | lv, AVX512BW, wRk | rV | rM, vl | mk, "64 65 74 75"},                                                      // vpcmpgtb
	{p66&w0 | lv, AVX512F, wRk | rV | rM, vl | bc | mk, "66 76"},                                                     // vpcmpgtd
	{p66&w0 | lv, AVX512BW, wR | rV | rM, vl | bc | mz, "6b"},                                                        // vpackssdw
	{p66&w1 | lv, AVX512F, wR | rV | rM, vl | bc | mz, "6c 6d d4 f4"},                                                // vpunpcklqdq
	{p66 | l128, AVX512F, wRx, 0, "6e"},                                                                              // vmovd/vmovq
	{p66 | pf3 | lv, AVX512F, wR | rM, vl | mz, "6f"},                                                                // vmovdqa32/vmovdqa64/vmovdqu32/vmovdqu64
	{pf2 | lv, AVX512BW, wR | rM, vl | mz, "6f"},                                                                     // vmovdqu16/vmovdqu8
	{p66&w0 | lv, AVX512F, wR | rM, vl | imm8 | bc | mz, "70"},                                                       // vpshufd
	{pf3 | pf2 | lv, AVX512BW, wR | rM, vl | imm8 | mz, "70"},                                                        // vpshufhw/vpshuflw
	{p66 | lv | r2 | r4 | r6, AVX512BW, wV | rM, vl | imm8 | mz, "71"},                                               // vpsllw/vpsraw/vpsrlw
	{p66 | lv | r0 | r1 | r4, AVX512F, wV | rM, vl | imm8 | bc | mz, "72"},                                           // vprold/vprolq/vprord/vprorq/vpslld/vpsrad/vpsraq/vpsrld
	{p66&w0 | lv | r2 | r6, AVX512F, wV | rM, vl | imm8 | bc | mz, "72"},                                             // vprold/vprolq/vprord/vprorq/vpslld/vpsrad/vpsraq/vpsrld
	{p66 | lv | r3 | r7, AVX512BW, wV | rM, vl | imm8, "73"},                                                         // vpslldq/vpsrldq
	{p66&w1 | lv | r2 | r6, AVX512F, wV | rM, vl | imm8 | bc | mz, "73"},                                             // vpsllq/vpsrlq
	{p0&w0 | lv, AVX512F, wR | rM, vl | bc | sae | mz, "78"},                                                         // vcvttps2udq
	{p0&w1 | lv, AVX512F, wRh | rM, vl | bc | sae | mz, "78"},                                                        // vcvttpd2udq
	{p66&w0 | lv, AVX512DQ, wR | rMh, vl | bc | sae | mz, "78 7a"},                                                   // vcvttps2uqq
	{p66&w1 | lv, AVX512DQ, wR | rM, vl | bc | sae | mz, "78 7a"},                                                    // vcvttpd2uqq
	{p0&w0 | lv, AVX512F, wR | rM, vl | bc | rc | mz, "79"},                                                          // vcvtps2udq
	{p0&w1 | lv, AVX512F, wRh | rM, vl | bc | rc | mz, "79"},                                                         // vcvtpd2udq
	{p66&w0 | lv, AVX512DQ, wR | rMh, vl | bc | rc | mz, "79 7b"},                                                    // vcvtps2uqq
	{p66&w1 | lv, AVX512DQ, wR | rM, vl | bc | rc | mz, "79 7b"},                                                     // vcvtpd2uqq
	{pf2&w0 | lv, AVX512F, wR | rM, vl | bc | rc | mz, "7a"},                                                         // vcvtudq2ps
	{pf2&w1 | lv, AVX512DQ, wRh | rM, vl | bc | rc | mz, "7a"},                                                       // vcvtuqq2ps
	{pf3&w0 | lv, AVX512F, wR | rMh, vl | bc | rc | mz, "7a e6"},                                                     // vcvtudq2pd
	{pf3&w1 | lv, AVX512DQ, wR | rM, vl | bc | rc | mz, "7a e6"},                                                     // vcvtuqq2pd
	{p66 | l128, AVX512F, rRx, 0, "7e"},                                                                              // vmovd/vmovq
	{pf3&w1 | l128, AVX512F, wRx | rMx, 0, "7e"},                                                                     // vmovq
	{p66 | pf3 | lv, AVX512F, rR | wM, vl | mz, "7f"},                                                                // vmovdqa32/vmovdqa64/vmovdqu32/vmovdqu64
	{pf2 | lv, AVX512BW, rR | wM, vl | mz, "7f"},                                                                     // vmovdqu16/vmovdqu8
	{pspd | lv, AVX512F, wRk | rV | rM, vl | imm8 | bc | sae | mk, "c2"},                                             // vcmppd/vcmpps
	{sssd, AVX512F, wRk | rVx | rMx, imm8 | sae | mk, "c2"},                                                          // vcmpsd/vcmpss
	{p66 | l128, AVX512BW, wRx | rVx, imm8, "c4"},                                                                    // vpinsrw
	{p66 | l128 | reg, AVX512BW, rMx, imm8 | gr, "c5"},                                                               // vpextrw
	{pspd | lv, AVX512F, wR | rV | rM, vl | imm8 | bc | mz, "c6"},                                                    // vshufpd/vshufps
	{p66 | lv, AVX512BW, wR | rV | rMx, vl | mz, "d1 e1 f1"},                                                         // vpsrlw
	{p66&w0 | lv, AVX512F, wR | rV | rMx, vl | mz, "d2 f2"},                                                          // vpsrld
	{p66&w1 | lv, AVX512F, wR | rV | rMx, vl | mz, "d3 f3"},                                                          // vpsrlq
	{p66&w1 | l128, AVX512F, rRx | wMx, 0, "d6"},                                                                     // vmovq
	{p66 | lv, AVX512BW, wR | rV | rM, vl | mz | idiom, "d8 d9 e8 e9 f8 f9"},                                         // vpsubusb
	{p66 | lv, AVX512F, wR | rV | rM, vl | bc | mz, "db df eb"},                                                      // vpandd/vpandq
	{p66 | lv, AVX512F, wR | rV | rMx, vl | mz, "e2"},                                                                // vpsrad/vpsraq
	{p66&w1 | lv, AVX512F, wRh | rM, vl | bc | sae | mz, "e6"},                                                       // vcvttpd2dq
	{pf2&w1 | lv, AVX512F, wRh | rM, vl | bc | rc | mz, "e6"},                                                        // vcvtpd2dq
	{p66&w0 | lv | mem, AVX512F, rR, vl, "e7"},                                                                       // vmovntdq
	{p66 | lv, AVX512F, wR | rV | rM, vl | bc | mz | idiom, "ef"},                                                    // vpxord/vpxorq
	{p66 | lv, AVX512BW, wR | rV | rM, vl, "f6"},                                                                     // vpsadbw
	{p66&w0 | lv, AVX512F, wR | rV | rM, vl | bc | mz | idiom, "fa"},                                                 // vpsubd
	{p66&w1 | lv, AVX512F, wR | rV | rM, vl | bc | mz | idiom, "fb"},                                                 // vpsubq
}

var evex2 = []row{
	{p66 | lv, AVX512BW, wR | rV | rM, vl | mz, "00 04 0b 38 3a 3c 3e"},                                           // vpshufb
	{p66&w0 | lv, AVX512F, wR | rV | rM, vl | bc | mz, "0c 40"},                                                   // vpermilps
	{p66&w1 | lv, AVX512F, wR | rV | rM, vl | bc | mz, "0d 28"},                                                   // vpermilpd
	{p66&w1 | lv, AVX512BW, wR | rV | rM, vl | mz, "10 11 12 8d"},                                                 // vpsrlvw
	{pf3&w0 | lv, AVX512BW, rR | wMh, vl | mz, "10 20 30"},                                                        // vpmovuswb
	{pf3&w0 | lv, AVX512F, rR | wMx, vl | mz, "11 12 14 21 22 24 31 32 34"},                                       // vpmovusdb
	{p66&w0 | lv, AVX512F, wR | rMh, vl | sae | mz, "13"},                                                         // vcvtph2ps
	{pf3&w0 | lv, AVX512F, rR | wMh, vl | mz, "13 15 23 25 33 35"},                                                // vpmovusdw
	{p66 | lv, AVX512F, wR | rV | rM, vl | bc | mz, "14 15 39 3b 3d 3f 45 46 47"},                                 // vprorvd/vprorvq
	{p66 | l256 | l512, AVX512F, wR | rV | rM, vl | bc | mz, "16 36"},                                             // vpermpd/vpermps
	{p66&w0 | lv, AVX512F, wR | rMx, vl | mz, "18 58"},                                                            // vbroadcastss
	{p66&w0 | l256 | l512, AVX512DQ, wR | rMx, vl | mz, "19"},                                                     // vbroadcastf32x2
	{p66&w1 | l256 | l512, AVX512F, wR | rMx, vl | mz, "19"},                                                      // vbroadcastsd
	{p66&w0 | l256 | l512 | mem, AVX512F, wR, vl | mz, "1a 5a"},                                                   // vbroadcastf32x4
	{p66&w1 | l256 | l512 | mem, AVX512DQ, wR, vl | mz, "1a 5a"},                                                  // vbroadcastf64x2
	{p66&w0 | l512 | mem, AVX512DQ, wR, mz, "1b 5b"},                                                              // vbroadcastf32x8
	{p66&w1 | l512 | mem, AVX512F, wR, mz, "1b 5b"},                                                               // vbroadcastf64x4
	{p66 | lv, AVX512BW, wR | rM, vl | mz, "1c 1d"},                                                               // vpabsb
	{p66&w0 | lv, AVX512F, wR | rM, vl | bc | mz, "1e"},                                                           // vpabsd
	{p66&w1 | lv, AVX512F, wR | rM, vl | bc | mz, "1f"},                                                           // vpabsq
	{p66 | lv, AVX512BW, wR | rMh, vl | mz, "20 30"},                                                              // vpmovsxbw
	{p66 | lv, AVX512F, wR | rMx, vl | mz, "21 22 24 31 32 34"},                                                   // vpmovsxbd
	{p66 | lv, AVX512F, wR | rMh, vl | mz, "23 33"},                                                               // vpmovsxwd
	{p66&w0 | lv, AVX512F, wR | rMh, vl | mz, "25 35"},                                                            // vpmovsxdq
	{p66 | pf3 | lv, AVX512BW, wRk | rV | rM, vl | mk, "26"},                                                      // vptestmb/vptestmw/vptestnmb/vptestnmw
	{p66 | pf3 | lv, AVX512F, wRk | rV | rM, vl | bc | mk, "27"},                                                  // vptestmd/vptestmq/vptestnmd/vptestnmq
	{pf3 | lv | reg, AVX512BW, wR | rMk, vl, "28"},                                                                // vpmovm2b/vpmovm2w
	{p66&w1 | lv, AVX512F, wRk | rV | rM, vl | bc | mk, "29 37"},                                                  // vpcmpeqq
	{pf3 | lv | reg, AVX512BW, wRk | rM, vl, "29"},                                                                // vpmovb2m/vpmovw2m
	{p66&w0 | lv | mem, AVX512F, wR, vl, "2a"},                                                                    // vmovntdqa
	{pf3&w1 | lv | reg, AVX512CD, wR | rMk, vl, "2a"},                                                             // vpbroadcastmb2q
	{p66&w0 | lv, AVX512BW, wR | rV | rM, vl | bc | mz, "2b"},                                                     // vpackusdw
	{p66 | lv, AVX512F, wR | rV | rM, vl | bc | rc | mz, "2c"},                                                    // vscalefpd/vscalefps
	{p66, AVX512F, wRx | rVx | rMx, rc | mz, "2d"},                                                                // vscalefsd/vscalefss
	{pf3 | lv | reg, AVX512DQ, wR | rMk, vl, "38"},                                                                // vpmovm2d/vpmovm2q
	{pf3 | lv | reg, AVX512DQ, wRk | rM, vl, "39"},                                                                // vpmovd2m/vpmovq2m
	{pf3&w0 | lv | reg, AVX512CD, wR | rMk, vl, "3a"},                                                             // vpbroadcastmw2d
	{p66&w1 | lv, AVX512DQ, wR | rV | rM, vl | bc | mz, "40"},                                                     // vpmullq
	{p66 | lv, AVX512F, wR | rM, vl | bc | sae | mz, "42"},                                                        // vgetexppd/vgetexpps
	{p66, AVX512F, wRx | rVx | rMx, sae | mz, "43"},                                                               // vgetexpsd/vgetexpss
	{p66 | lv, AVX512CD, wR | rM, vl | bc | mz, "44 c4"},                                                          // vplzcntd/vplzcntq
	{p66 | lv, AVX512F, wR | rM, vl | bc | mz, "4c 4e"},                                                           // vrcp14pd/vrcp14ps
	{p66, AVX512F, wRx | rVx | rMx, mz, "4d 4f"},                                                                  // vrcp14sd/vrcp14ss
	{p66&w0 | lv, AVX512VNNI, mR | rV | rM, vl | bc | mz, "50 51 52 53"},                                          // vpdpbusd
	{pf2&w0 | l512 | mem, AVX5124VNNIW, mR | rV, mz | four, "52 53"},                                              // vp4dpwssd
	{pf3&w0 | lv, AVX512BF16 | AVX512F<<8, mR | rV | rM, vl | bc | mz, "52"},                                      // vdpbf16ps
	{p66 | lv, AVX512BITALG, wR | rM, vl | mz, "54"},                                                              // vpopcntb/vpopcntw
	{p66 | lv, AVX512VPOPCNTDQ, wR | rM, vl | bc | mz, "55"},                                                      // vpopcntd/vpopcntq
	{p66&w0 | lv, AVX512DQ, wR | rMx, vl | mz, "59"},                                                              // vbroadcasti32x2
	{p66&w1 | lv, AVX512F, wR | rMx, vl | mz, "59"},                                                               // vpbroadcastq
	{p66 | lv, AVX512VBMI2, wR | rM, vl | mz, "62"},                                                               // vpexpandb/vpexpandw
	{p66 | lv, AVX512VBMI2, rR | wM, vl | mz, "63"},                                                               // vpcompressb/vpcompressw
	{pf2 | lv, AVX512VP2INTERSECT | AVX512F<<8, wRk | rV | rM, vl | bc | pair, "68"},                              // vp2intersectd/vp2intersectq
	{p66 | lv, AVX512F, wR | rV | rM, vl | bc | mz | blend, "64 65"},                                              // vpblendmd/vblendmpd
	{p66 | lv, AVX512BW, wR | rV | rM, vl | mz | blend, "66"},                                                     // vpblendmb/vpblendmw
	{p66&w1 | lv, AVX512VBMI2, mR | rV | rM, vl | mz, "70 72"},                                                    // vpshldvw
	{p66 | lv, AVX512VBMI2, mR | rV | rM, vl | bc | mz, "71 73"},                                                  // vpshldvd/vpshldvq
	{pf2&w0 | lv, AVX512BF16 | AVX512F<<8, wR | rV | rM, vl | bc | mz, "72"},                                      // vcvtne2ps2bf16
	{pf3&w0 | lv, AVX512BF16 | AVX512F<<8, wRh | rM, vl | bc | mz, "72"},                                          // vcvtneps2bf16
	{p66&w0 | lv, AVX512VBMI, mR | rV | rM, vl | mz, "75 7d"},                                                     // vpermi2b
	{p66&w1 | lv, AVX512BW, mR | rV | rM, vl | mz, "75 7d"},                                                       // vpermi2w
	{p66 | lv, AVX512F, mR | rV | rM, vl | bc | mz, "76 77 7e 7f"},                                                // vpermi2d/vpermi2q
	{p66&w0 | lv, AVX512BW, wR | rMx, vl | mz, "78 79"},                                                           // vpbroadcastb
	{p66&w0 | lv | reg, AVX512BW, wR, vl | mz, "7a 7b"},                                                           // vpbroadcastb
	{p66 | lv | reg, AVX512F, wR, vl | mz, "7c"},                                                                  // vpbroadcastd/vpbroadcastq
	{p66&w1 | lv, AVX512VBMI, wR | rV | rM, vl | bc | mz, "83"},                                                   // vpmultishiftqb
	{p66 | lv, AVX512F, wR | rM, vl | mz, "88 89"},                                                                // vexpandpd/vexpandps
	{p66 | lv, AVX512F, rR | wM, vl | mz, "8a 8b"},                                                                // vcompresspd/vcompressps
	{p66&w0 | lv, AVX512VBMI, wR | rV | rM, vl | mz, "8d"},                                                        // vpermb
	{p66&w0 | lv, AVX512BITALG, wRk | rV | rM, vl | mk, "8f"},                                                     // vpshufbitqmb
	{p66&w0 | lv | mem, AVX512F, wR | rM, sib | vsib | vl | mq | uniq, "90"},                                      // vpgatherdd
	{p66&w1 | lv | mem, AVX512F, wR | rMh, sib | vsib | vl | mq | uniq, "90"},                                     // vpgatherdq
	{p66&w0 | lv | mem, AVX512F, wRh | rM, sib | vsib | vl | mq | uniq, "91"},                                     // vpgatherqd
	{p66&w1 | lv | mem, AVX512F, wR | rM, sib | vsib | vl | mq | uniq, "91"},                                      // vpgatherqq
	{p66&w0 | lv | mem, AVX512F, mR | rM, sib | vsib | vl | mq | uniq, "92"},                                      // vgatherdps
	{p66&w1 | lv | mem, AVX512F, mR | rMh, sib | vsib | vl | mq | uniq, "92"},                                     // vgatherdpd
	{p66&w0 | lv | mem, AVX512F, mRh | rM, sib | vsib | vl | mq | uniq, "93"},                                     // vgatherqps
	{p66&w1 | lv | mem, AVX512F, mR | rM, sib | vsib | vl | mq | uniq, "93"},                                      // vgatherqpd
	{p66 | lv, AVX512F, mR | rV | rM, vl | bc | rc | mz, "96 97 98 9a 9c 9e a6 a7 a8 aa ac ae b6 b7 b8 ba bc be"}, // vfmaddsub132pd/vfmaddsub132ps
	{p66, AVX512F, mRx | rVx | rMx, rc | mz, "99 9b 9d 9f a9 ab ad af b9 bb bd bf"},                               // vfmadd132sd/vfmadd132ss
	{pf2&w0 | l512 | mem, AVX5124FMAPS, mR | rV, mz | four, "9a aa"},                                              // v4fmaddps
	{pf2&w0 | mem, AVX5124FMAPS, mRx | rVx, mz | four, "9b ab"},                                                   // v4fmaddss
	{p66&w0 | lv | mem, AVX512F, rR | rM, sib | vsib | vl | mq, "a0 a2"},                                          // vpscatterdd
	{p66&w1 | lv | mem, AVX512F, rR | rMh, sib | vsib | vl | mq, "a0 a2"},                                         // vpscatterdq
	{p66&w0 | lv | mem, AVX512F, rRh | rM, sib | vsib | vl | mq, "a1 a3"},                                         // vpscatterqd
	{p66&w1 | lv | mem, AVX512F, rR | rM, sib | vsib | vl | mq, "a1 a3"},                                          // vpscatterqq
	{p66&w1 | lv, AVX512IFMA, mR | rV | rM, vl | bc | mz, "b4 b5"},                                                // vpmadd52luq
	{p66&w0 | l512 | mem | r1 | r2 | r5 | r6, AVX512PF, rM, sib | vsib | mq, "c6"},                                // vgatherpf0dps/vgatherpf1dps/vscatterpf0dps/vscatterpf1dps
	{p66&w1 | l512 | mem | r1 | r2 | r5 | r6, AVX512PF, rMh, sib | vsib | mq, "c6"},                               // vgatherpf0dpd/vgatherpf1dpd/vscatterpf0dpd/vscatterpf1dpd
	{p66 | l512 | mem | r1 | r2 | r5 | r6, AVX512PF, rM, sib | vsib | mq, "c7"},                                   // vgatherpf0qpd/vgatherpf0qps/vgatherpf1qpd/vgatherpf1qps/vscatterpf0qpd/vscatterpf0qps/vscatterpf1qpd/vscatterpf1qps
	{p66 | l512, AVX512ER, wR | rM, bc | sae | mz, "c8 ca cc"},                                                    // vexp2pd/vexp2ps
	{p66, AVX512ER, wRx | rVx | rMx, sae | mz, "cb cd"},                                                           // vrcp28sd/vrcp28ss
	{p66&w0 | lv, GFNI | AVX512F<<8, wR | rV | rM, vl | mz, "cf"},                                                 // vgf2p8mulb
	{p66 | lv, VAES | AVX512F<<8, wR | rV | rM, vl, "dc dd de df"},                                                // vaesenc
}

var evex3 = []row{
	{p66&w1 | l256 | l512, AVX512F, wR | rM, vl | imm8 | bc | mz, "00 01"},       // vpermq
	{p66 | lv, AVX512F, wR | rV | rM, vl | imm8 | bc | mz, "03"},                 // valignd/valignq
	{p66&w0 | lv, AVX512F, wR | rM, vl | imm8 | bc | mz, "04"},                   // vpermilps
	{p66&w1 | lv, AVX512F, wR | rM, vl | imm8 | bc | mz, "05"},                   // vpermilpd
	{p0&w0 | lv, AVX512FP16, wR | rM, vl | imm8 | bc | sae | mz, "08 26 56"},     // vrndscaleph
	{p66&w0 | lv, AVX512F, wR | rM, vl | imm8 | bc | sae | mz, "08"},             // vrndscaleps
	{p66&w1 | lv, AVX512F, wR | rM, vl | imm8 | bc | sae | mz, "09"},             // vrndscalepd
	{p0 & w0, AVX512FP16, wRx | rVx | rMx, imm8 | sae | mz, "0a 27 57"},          // vrndscalesh
	{p66 & w0, AVX512F, wRx | rVx | rMx, imm8 | sae | mz, "0a"},                  // vrndscaless
	{p66 & w1, AVX512F, wRx | rVx | rMx, imm8 | sae | mz, "0b"},                  // vrndscalesd
	{p66 | lv, AVX512BW, wR | rV | rM, vl | imm8 | mz, "0f"},                     // vpalignr
	{p66 | l128, AVX512BW, rRx, imm8, "14 15"},                                   // vpextrb
	{p66 | l128, AVX512DQ, rRx, imm8, "16"},                                      // vpextrd/vpextrq
	{p66 | l128, AVX512F, rRx, imm8, "17"},                                       // vextractps
	{p66&w0 | l256 | l512, AVX512F, wR | rV | rMx, vl | imm8 | mz, "18 38"},      // vinsertf32x4
	{p66&w1 | l256 | l512, AVX512DQ, wR | rV | rMx, vl | imm8 | mz, "18 38"},     // vinsertf64x2
	{p66&w0 | l256 | l512, AVX512F, rR | wMx, vl | imm8 | mz, "19 39"},           // vextractf32x4
	{p66&w1 | l256 | l512, AVX512DQ, rR | wMx, vl | imm8 | mz, "19 39"},          // vextractf64x2
	{p66&w0 | l512, AVX512DQ, wR | rV | rMh, imm8 | mz, "1a 3a"},                 // vinsertf32x8
	{p66&w1 | l512, AVX512F, wR | rV | rMh, imm8 | mz, "1a 3a"},                  // vinsertf64x4
	{p66&w0 | l512, AVX512DQ, rR | wMh, imm8 | mz, "1b 3b"},                      // vextractf32x8
	{p66&w1 | l512, AVX512F, rR | wMh, imm8 | mz, "1b 3b"},                       // vextractf64x4
	{p66&w0 | lv, AVX512F, rR | wMh, vl | imm8 | sae | mz, "1d"},                 // vcvtps2ph
	{p66 | lv, AVX512F, wRk | rV | rM, vl | imm8 | bc | mk, "1e 1f"},             // vpcmpud/vpcmpuq
	{p66 | l128, AVX512BW, wRx | rVx, imm8, "20"},                                // vpinsrb
	{p66&w0 | l128, AVX512F, wRx | rVx | rMx, imm8, "21"},                        // vinsertps
	{p66 | l128, AVX512DQ, wRx | rVx, imm8, "22"},                                // vpinsrd/vpinsrq
	{p66 | l256 | l512, AVX512F, wR | rV | rM, vl | imm8 | bc | mz, "23 43"},     // vshuff32x4/vshuff64x2
	{p66 | lv, AVX512F, mR | rV | rM, vl | imm8 | bc | mz, "25"},                 // vpternlogd/vpternlogq
	{p66 | lv, AVX512F, wR | rM, vl | imm8 | bc | sae | mz, "26"},                // vgetmantpd/vgetmantps
	{p66, AVX512F, wRx | rVx | rMx, imm8 | sae | mz, "27"},                       // vgetmantsd/vgetmantss
	{p66 | lv, AVX512BW, wRk | rV | rM, vl | imm8 | mk, "3e 3f"},                 // vpcmpub/vpcmpuw
	{p66&w0 | lv, AVX512BW, wR | rV | rM, vl | imm8 | mz, "42"},                  // vdbpsadbw
	{p66 | lv, VPCLMULQDQ | AVX512F<<8, wR | rV | rM, vl | imm8, "44"},           // vpclmulqdq
	{p66 | lv, AVX512DQ, wR | rV | rM, vl | imm8 | bc | sae | mz, "50"},          // vrangepd/vrangeps
	{p66, AVX512DQ, wRx | rVx | rMx, imm8 | sae | mz, "51 57"},                   // vrangesd/vrangess
	{p66 | lv, AVX512F, mR | rV | rM, vl | imm8 | bc | sae | mz, "54"},           // vfixupimmpd/vfixupimmps
	{p66, AVX512F, mRx | rVx | rMx, imm8 | sae | mz, "55"},                       // vfixupimmsd/vfixupimmss
	{p66 | lv, AVX512DQ, wR | rM, vl | imm8 | bc | sae | mz, "56"},               // vreducepd/vreduceps
	{p0&w0 | lv, AVX512FP16, wRk | rM, vl | imm8 | bc | mk, "66"},                // vfpclassph
	{p66 | lv, AVX512DQ, wRk | rM, vl | imm8 | bc | mk, "66"},                    // vfpclasspd/vfpclassps
	{p0 & w0, AVX512FP16, wRk | rMx, imm8 | mk, "67"},                            // vfpclasssh
	{p66, AVX512DQ, wRk | rMx, imm8 | mk, "67"},                                  // vfpclasssd/vfpclassss
	{p66&w1 | lv, AVX512VBMI2, wR | rV | rM, vl | imm8 | mz, "70 72"},            // vpshldw
	{p66 | lv, AVX512VBMI2, wR | rV | rM, vl | imm8 | bc | mz, "71 73"},          // vpshldd/vpshldq
	{p0&w0 | lv, AVX512FP16, wRk | rV | rM, vl | imm8 | bc | sae | mk, "c2"},     // vcmpph
	{pf3 & w0, AVX512FP16, wRk | rVx | rMx, imm8 | sae | mk, "c2"},               // vcmpsh
	{p66&w1 | lv, GFNI | AVX512F<<8, wR | rV | rM, vl | imm8 | bc | mz, "ce cf"}, // vgf2p8affineqb
}

var evex5 = []row{
	{pf3&w0 | mem, AVX512FP16, wRx, mz, "10"},                                // vmovsh
	{pf3&w0 | reg, AVX512FP16, wRx | rVx | rMx, mz, "10"},                    // vmovsh
	{pf3&w0 | mem, AVX512FP16, rRx, mk, "11"},                                // vmovsh
	{pf3&w0 | reg, AVX512FP16, rRx | rVx | wMx, mz, "11"},                    // vmovsh
	{p0 & w0, AVX512FP16, wRx | rVx | rMx, rc | mz, "1d"},                    // vcvtss2sh
	{p66&w0 | lv, AVX512FP16, wRh | rM, vl | bc | rc | mz, "1d"},             // vcvtps2phx
	{pf3, AVX512FP16, wRx | rVx, rc, "2a 7b"},                                // vcvtsi2sh
	{pf3, AVX512FP16, rMx, sae | gr, "2c 78"},                                // vcvttsh2si
	{pf3, AVX512FP16, rMx, rc | gr, "2d 79"},                                 // vcvtsh2si
	{p0 & w0, AVX512FP16, rRx | rMx, sae, "2e 2f"},                           // vucomish
	{p0&w0 | lv, AVX512FP16, wR | rM, vl | bc | rc | mz, "51"},               // vsqrtph
	{pf3 & w0, AVX512FP16, wRx | rVx | rMx, rc | mz, "51 58 59 5c 5e"},       // vsqrtsh
	{p0&w0 | lv, AVX512FP16, wR | rV | rM, vl | bc | rc | mz, "58 59 5c 5e"}, // vaddph
	{p0&w0 | lv, AVX512FP16, wR | rMx, vl | bc | sae | mz, "5a"},             // vcvtph2pd
	{p66&w1 | lv, AVX512FP16, wRx | rM, vl | bc | rc | mz, "5a"},             // vcvtpd2ph
	{pf2 & w1, AVX512FP16, wRx | rVx | rMx, rc | mz, "5a"},                   // vcvtsd2sh
	{pf3 & w0, AVX512FP16, wRx | rVx | rMx, sae | mz, "5a 5d 5f"},            // vcvtsh2sd
	{p0&w0 | lv, AVX512FP16, wRh | rM, vl | bc | rc | mz, "5b"},              // vcvtdq2ph
	{p0&w1 | lv, AVX512FP16, wRx | rM, vl | bc | rc | mz, "5b"},              // vcvtqq2ph
	{p66&w0 | lv, AVX512FP16, wR | rMh, vl | bc | rc | mz, "5b"},             // vcvtph2dq
	{pf3&w0 | lv, AVX512FP16, wR | rMh, vl | bc | sae | mz, "5b"},            // vcvttph2dq
	{p0&w0 | lv, AVX512FP16, wR | rV | rM, vl | bc | sae | mz, "5d 5f"},      // vminph
	{p66 | l128, AVX512FP16, wRx, 0, "6e"},                                   // vmovw
	{p0&w0 | lv, AVX512FP16, wR | rMh, vl | bc | sae | mz, "78"},             // vcvttph2udq
	{p66&w0 | lv, AVX512FP16, wR | rMx, vl | bc | sae | mz, "78 7a"},         // vcvttph2uqq
	{p0&w0 | lv, AVX512FP16, wR | rMh, vl | bc | rc | mz, "79"},              // vcvtph2udq
	{p66&w0 | lv, AVX512FP16, wR | rMx, vl | bc | rc | mz, "79 7b"},          // vcvtph2uqq
	{pf2&w0 | lv, AVX512FP16, wRh | rM, vl | bc | rc | mz, "7a"},             // vcvtudq2ph
	{pf2&w1 | lv, AVX512FP16, wRx | rM, vl | bc | rc | mz, "7a"},             // vcvtuqq2ph
	{p0&w0 | p66&w0 | lv, AVX512FP16, wR | rM, vl | bc | sae | mz, "7c"},     // vcvttph2uw/vcvttph2w
	{w0 | lv, AVX512FP16, wR | rM, vl | bc | rc | mz, "7d"},                  // vcvtph2uw/vcvtph2w/vcvtuw2ph/vcvtw2ph
	{p66 | l128, AVX512FP16, rRx, 0, "7e"},                                   // vmovw
}

var evex6 = []row{
	{p0 & w0, AVX512FP16, wRx | rVx | rMx, sae | mz, "13"},                                                              // vcvtsh2ss
	{p66&w0 | lv, AVX512FP16, wR | rMh, vl | bc | sae | mz, "13"},                                                       // vcvtph2psx
	{p66&w0 | lv, AVX512FP16, wR | rV | rM, vl | bc | rc | mz, "2c"},                                                    // vscalefph
	{p66 & w0, AVX512FP16, wRx | rVx | rMx, rc | mz, "2d"},                                                              // vscalefsh
	{p66&w0 | lv, AVX512FP16, wR | rM, vl | bc | sae | mz, "42"},                                                        // vgetexpph
	{p66 & w0, AVX512FP16, wRx | rVx | rMx, sae | mz, "43"},                                                             // vgetexpsh
	{p66&w0 | lv, AVX512FP16, wR | rM, vl | bc | mz, "4c 4e"},                                                           // vrcpph
	{p66 & w0, AVX512FP16, wRx | rVx | rMx, mz, "4d 4f"},                                                                // vrcpsh
	{pf3&w0 | pf2&w0 | lv, AVX512FP16, mR | rV | rM, vl | bc | rc | mz | uniqD, "56"},                                   // vfcmaddcph/vfmaddcph
	{pf3&w0 | pf2&w0, AVX512FP16, mRx | rVx | rMx, rc | mz | uniqD, "57"},                                               // vfcmaddcsh/vfmaddcsh
	{p66&w0 | lv, AVX512FP16, mR | rV | rM, vl | bc | rc | mz, "96 97 98 9a 9c 9e a6 a7 a8 aa ac ae b6 b7 b8 ba bc be"}, // vfmaddsub132ph
	{p66 & w0, AVX512FP16, mRx | rVx | rMx, rc | mz, "99 9b 9d 9f a9 ab ad af b9 bb bd bf"},                             // vfmadd132sh
	{pf3&w0 | pf2&w0 | lv, AVX512FP16, wR | rV | rM, vl | bc | rc | mz | uniqD, "d6"},                                   // vfcmulcph/vfmulcph
	{pf3&w0 | pf2&w0, AVX512FP16, wRx | rVx | rMx, rc | mz | uniqD, "d7"},                                               // vfcmulcsh/vfmulcsh
}

var xop8 = []row{
	{p0&w0 | l128, XOP, wRx | rVx | rMx | rIx, is4, "85 86 87 8e 8f 95 96 97 9e 9f a6 b6"}, // vpmacssww
	{p0 | l128 | l256, XOP, wR | rV | rM | rI, is4, "a2"},                                  // vpcmov
	{p0 | l128, XOP, wRx | rVx | rMx | rIx, is4, "a3"},                                     // vpperm
	{p0&w0 | l128, XOP, wRx | rMx, imm8, "c0 c1 c2 c3"},                                    // vprotb
	{p0&w0 | l128, XOP, wRx | rVx | rMx, imm8, "cc cd ce cf ec ed ee ef"},                  // vpcomb
}

var xop9 = []row{
	{p0 | l128 | r1 | r2 | r3 | r4 | r5 | r6 | r7, TBM, 0, gv, "01"},                        // blcfill/blcic/blcs/blsfill/blsic/t1mskc/tzmsk
	{p0 | l128 | r1 | r6, TBM, 0, gv, "02"},                                                 // blci/blcmsk
	{p0 | l128 | reg | r0 | r1, LWP, 0, 0, "12"},                                            // llwpcb/slwpcb
	{p0&w0 | l128 | l256, XOP, wR | rM, 0, "80 81"},                                         // vfrczps
	{p0&w0 | l128, XOP, wRx | rMx, 0, "82 83 c1 c2 c3 c6 c7 cb d1 d2 d3 d6 d7 db e1 e2 e3"}, // vfrczss
	{p0 | l128, XOP, wRx | rVx | rMx, 0, "90 91 92 93 94 95 96 97 98 99 9a 9b"},             // vprotb
}

var xop10 = []row{
	{p0 | l128, TBM, 0, imm32, "10"},                // bextr
	{p0 | l128 | r0 | r1, LWP, 0, imm32 | gv, "12"}, // lwpins/lwpval
}
