// Writes codec/isa/testdata/x86-encodings.tsv.gz: what iced-x86 says of encodings of
// x86-64, made systematically. CONTRIBUTING.md says how to run it.
//
// A line has, between tabs: the bytes before the byte that varies and those after it, in
// hexadecimal, or nothing where they are those of the line above; the length; iced's CPU
// features; the vector and opmask registers that are read, and those that are written for
// certain, XMM0 to XMM15 left out; and the values of the byte that varies, in hexadecimal.
// A value that no line has is one that iced does not decode; a line that has none stands
// where it decodes none of them.
import {writeFileSync} from 'node:fs';
import {gzipSync} from 'node:zlib';
import iced from 'iced-x86';

const {Decoder, DecoderOptions, InstructionInfoFactory, Register, OpAccess, CpuidFeature, Code} = iced;

const reads = new Set([OpAccess.Read, OpAccess.CondRead, OpAccess.ReadWrite, OpAccess.ReadCondWrite]);
const writes = new Set([OpAccess.Write, OpAccess.ReadWrite]);
const upper = /^([yz]mm\d+|xmm(1[6-9]|[23]\d)|k\d)$/;
const info = new InstructionInfoFactory();

// answer returns what a line says of an encoding, without the bytes.
function answer(bytes) {
	const decoder = new Decoder(64, bytes, DecoderOptions.None);
	const instr = decoder.decode();
	let line = none;
	if (instr.code !== Code.INVALID) {
		const list = {read: new Set(), write: new Set()};
		for (const used of info.info(instr).usedRegisters()) {
			const name = Register[used.register].toLowerCase();
			if (upper.test(name)) {
				if (reads.has(used.access)) list.read.add(name);
				if (writes.has(used.access)) list.write.add(name);
			}
			used.free();
		}
		const features = [...instr.cpuidFeatures()].map(f => CpuidFeature[f]).sort();
		line = [instr.length, features.join(' '), [...list.read].join(' '), [...list.write].join(' ')].join('\t');
	}
	instr.free();
	decoder.free();
	return line;
}

const none = '0\t\t\t';
const lines = [];
const done = new Set();

// vary adds the encodings of 256 values of a byte between others.
function vary(before, after) {
	let head = hex(before) + '\t' + hex(after) + '\t';
	if (done.has(head)) return;
	done.add(head);
	const of = new Map();
	const bytes = new Uint8Array(15);
	bytes.set(before);
	bytes.set(after, before.length + 1);
	for (let value = 0; value < 256; value++) {
		bytes[before.length] = value;
		const a = answer(bytes);
		of.set(a, (of.get(a) ?? '') + hex([value]));
	}
	if (of.size > 1) of.delete(none);
	for (const [a, values] of of) {
		lines.push(head + a + '\t' + (a === none ? '' : values));
		head = '\t\t';
	}
}

const hex = bytes => Buffer.from(bytes).toString('hex');
const range = (n, from = 0) => Array.from({length: n}, (_, i) => from + i);

// Displacement and immediate behind ModRM: a register number of is4 is in the first one.
const tail = [0x35, 0x12, 0x23, 0x34, 0x45, 0x56, 0x67, 0x78];
const after = (...modrm) => [...modrm, ...tail];
const register = 0xca, memory = 0x0b; // ModRM of reg 1 with rm 2, and [rbx]
const groups = range(8).flatMap(reg => [0xc2 | reg << 3, 0x03 | reg << 3]);

// Legacy maps: each opcode with what may stand before it, and each ModRM byte.
const maps = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];
const mandatory = [[], [0x66], [0xf3], [0xf2]];
for (const map of maps) {
	for (const prefix of mandatory) {
		for (const rex of [[], [0x48], [0x4d]]) {
			for (const modrm of groups) vary([...prefix, ...rex, ...map], after(modrm));
		}
	}
	for (const prefix of [[0xf0], [0xf0, 0x66], [0xf3, 0x66], [0xf2, 0x66], [0x66, 0xf3], [0xf3, 0xf2], [0xf2, 0xf3], [0x67], [0x64], [0x2e], [0x48, 0x66]]) {
		for (const modrm of groups) vary([...prefix, ...map], after(modrm));
	}
	for (const sib of [0x24, 0x25, 0xd3]) {
		for (const mod of range(3)) vary(map, after(mod << 6 | 0x0c, sib));
	}
	for (const modrm of [0x0d, 0x4b, 0x8b]) vary(map, after(modrm));
}
for (const prefix of mandatory) {
	for (const op of [...range(8, 0xd8), 0x8f, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff]) vary([...prefix, op], tail);
	for (const op of [0x00, 0x01, 0x0d, 0x18, 0x1e, 0x71, 0x72, 0x73, 0xae, 0xba, 0xc7]) vary([...prefix, 0x0f, op], tail);
}
for (const modrm of groups) vary([0x0f, 0x0f, modrm], tail); // 3DNow!

// VEX and XOP. vvvv 15 is none.
const vvvv = [15, 4];
const bits = (w, v, l, pp) => w << 7 | v << 3 | l << 2 | pp;
for (const [lead, mapsOf] of [[0xc4, [1, 2, 3]], [0x8f, [8, 9, 10]]]) {
	for (const map of mapsOf) {
		for (const [w, v, l, pp] of product([0, 1], vvvv, [0, 1], range(4))) {
			for (const modrm of groups) vary([lead, 0xe0 | map, bits(w, v, l, pp)], after(modrm));
			vary([lead, 0xe0 | map, bits(w, v, l, pp)], after(0x0c, 0x2b)); // a VSIB
			vary([lead, 0xe0 | map, bits(w, v, l, pp)], after(0x24, 0x0d));
			for (const rxb of range(7)) vary([lead, rxb << 5 | map, bits(w, v, l, pp)], after(register));
			vary([lead, map, bits(w, v, l, pp)], after(0x8c, 0xab));
		}
		// The same register twice.
		for (const [l, pp, modrm] of product([0, 1], range(4), [0xc9, 0xd1, 0xca])) {
			vary([lead, 0xe0 | map, bits(0, 14, l, pp)], after(modrm));
		}
	}
	for (const map of [0, 4, 5, 6, 7, 11, 16, 24, 31]) {
		if (lead === 0xc4 || map > 10) vary([lead, 0xe0 | map, bits(0, 15, 0, 0)], after(register));
	}
}
for (const [r, v, l, pp] of product([0, 1], vvvv, [0, 1], range(4))) {
	for (const modrm of [register, memory]) vary([0xc5, r << 7 | v << 3 | l << 2 | pp], after(modrm));
}
for (const prefix of [0x66, 0xf2, 0xf3, 0xf0, 0x48]) {
	for (const map of range(3, 1)) vary([prefix, 0xc4, 0xe0 | map, bits(0, 15, 0, 1)], after(register));
	for (const map of [1, 2, 3, 5, 6]) vary([prefix, 0x62, 0xf0 | map, 0x7d, 0x08], after(register));
	for (const map of range(3, 8)) vary([prefix, 0x8f, 0xe0 | map, bits(0, 15, 0, 0)], after(register));
}

// EVEX.
for (const map of [1, 2, 3, 5, 6]) {
	const evex = (rxbr, w, v, pp, z, l, b, v4, k) =>
		[0x62, rxbr << 4 | map, w << 7 | v << 3 | 4 | pp, z << 7 | l << 5 | b << 4 | v4 << 3 | k];
	for (const [w, v, pp, l, k] of product([0, 1], vvvv, range(4), range(4), [0, 3])) {
		for (const [z, b, modrm] of product([0, 1], [0, 1], [register, memory])) {
			vary(evex(15, w, v, pp, z, l, b, 1, k), after(modrm));
		}
		for (const modrm of l === 2 ? groups : []) vary(evex(15, w, v, pp, 0, l, 0, 1, k), after(modrm));
		vary(evex(15, w, v, pp, 0, l, 0, 1, k), after(0x0c, 0x2b)); // a VSIB
	}
	for (const [w, pp, l] of product([0, 1], range(4), range(3))) {
		for (const [rxbr, k, modrm] of product(range(15), [0, 3], [register, memory])) {
			vary(evex(rxbr, w, 15, pp, 0, l, 0, 1, k), after(modrm));
		}
		for (const rxbr of [0, 7, 11, 13, 14]) vary(evex(rxbr, w, 15, pp, 0, l, 0, 0, 3), after(0x0c, 0x2b));
		vary(evex(15, w, 15, pp, 0, l, 0, 0, 0), after(register)); // V' alone
		vary(evex(15, w, 4, pp, 0, l, 0, 0, 3), after(register));
		vary(evex(15, w, 15, pp, 1, l, 0, 0, 3), after(0x4b));
		// The same register twice.
		for (const [k, modrm] of product([0, 3], [0xc9, 0xd1, 0xca])) vary(evex(15, w, 14, pp, 0, l, 0, 1, k), after(modrm));
	}
	for (const p1 of [0x78, 0x79]) vary([0x62, 0xf0 | map, p1, 0x08], after(register)); // reserved bits
	vary([0x62, 0xf8 | map, 0x7d, 0x08], after(register));
}
for (const map of [0, 4, 7]) vary([0x62, 0xf0 | map, 0x7d, 0x08], after(register));

function product(...lists) {
	return lists.reduce((all, list) => all.flatMap(head => list.map(x => [...head, x])), [[]]);
}

const text = lines.join('\n') + '\n';
const zipped = gzipSync(text, {level: 9});
zipped[9] = 255; // the same bytes on every system
writeFileSync(new URL('../../../codec/isa/testdata/x86-encodings.tsv.gz', import.meta.url), zipped);
console.error(`${256 * done.size} encodings, ${lines.length} lines, ${text.length} bytes, packed ${zipped.length}`);
