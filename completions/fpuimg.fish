# fish completion for fpuimg; fpuimg prints it

complete -c fpuimg -n __fish_use_subcommand -f -a show -d 'show the FPU state of every thread of a checkpoint'
complete -c fpuimg -n __fish_use_subcommand -f -a check -d 'say whether a checkpoint fits a machine, and why not'
complete -c fpuimg -n __fish_use_subcommand -f -a convert -d 'change the format of the FPU records of a checkpoint'
complete -c fpuimg -n __fish_use_subcommand -f -a level -d 'make a checkpoint run on a lesser machine'
complete -c fpuimg -n __fish_use_subcommand -f -a need -d 'say what a machine must have for a checkpoint to run there'
complete -c fpuimg -n __fish_use_subcommand -f -a profile -d 'describe a machine for --host'
complete -c fpuimg -n __fish_use_subcommand -f -a diff -d 'show what differs between the FPU states of two checkpoints'
complete -c fpuimg -n __fish_use_subcommand -f -a completion -d 'print a script that completes fpuimg\'s commands in a shell'
complete -c fpuimg -n __fish_use_subcommand -f -a help -d 'print the manual of a command'
complete -c fpuimg -n __fish_use_subcommand -f -a version -d 'print the version'
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l regs -d 'print every register'
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l as -d 'print every register, the vector ones as LANES: hex (the default), f32, f64, i8, i16, i32, i64, u8, u16, u32 or u64' -a 'hex f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 text json affinity nfd-rule annotations' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l component -d 'only these state components: NAME[,NAME]...' -a 'x87 SSE AVX BNDREGS BNDCSR opmask ZMM_Hi256 Hi16_ZMM PT PKRU PASID CET_U CET_S HDC UINTR LBR HWP TILECFG TILEDATA APX' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l tid -d 'only these threads: TID[,TID]...' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l json -d 'print one JSON document'
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l redact -d 'print states, no register values'
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l xsave-area -d 'read each input as a bare XSAVE area, of standard or compacted format'
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l host -d 'with --xsave-area, or an ELF core that does not say so, the machine whose layout it has: this one or PROFILE' -a 'x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5'
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l elf-core -d 'write the registers of all threads as an ELF core to FILE, for a debugger; - is standard output' -r
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l color -d 'colour, by WHEN: auto (the default, on a terminal), always or never' -a 'auto always never' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from show' -l help -d 'print the manual'
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l host -d 'check against this machine or PROFILE: a file, a directory with a cpuinfo.img, or a name such as x86-64-v3 or znver3; may be repeated' -a 'x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5'
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l hosts -d 'check against each machine that a file in DIR describes; may be repeated' -r
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l root -d 'judge the code too, by the programs\' files below DIR: /, or a container\'s root file system; may be repeated' -r
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l spool -d 'with --root, keep at most SIZE of the memory in a compressed archive in a temporary file, such as 500M' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l no-memory -d 'look at registers alone, not at the dumped memory'
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l criu -d 'predict this VERSION of CRIU, 3.11 to 4.3 (default 4.3)' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l json -d 'print one JSON document'
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l html -d 'write a page with all images and machines to this new file' -r
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l xsave-area -d 'read each input as a bare XSAVE area, of standard or compacted format'
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l color -d 'colour, by WHEN: auto (the default, on a terminal), always or never' -a 'auto always never' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from check' -l help -d 'print the manual'
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l to -d 'the format to convert to: none, fxsave or xsave' -a 'none fxsave xsave' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l features -d 'with --to=xsave, the state components to keep and add: x87,SSE,AVX' -a 'x87 SSE AVX BNDREGS BNDCSR opmask ZMM_Hi256 Hi16_ZMM PT PKRU PASID CET_U CET_S HDC UINTR LBR HWP TILECFG TILEDATA APX' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l host -d 'what fits this machine or PROFILE: a file, a directory with a cpuinfo.img, or a name such as x86-64-v3 or znver3' -a 'x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5'
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l force -d 'go ahead where registers are lost'
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l keep-cpuinfo -d 'leave cpuinfo.img as it is'
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l root -d 'prove by the programs\' files below DIR which registers the threads have done with; may be repeated' -r
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l spool -d 'with --root, keep at most SIZE of the memory in a compressed archive in a temporary file, such as 500M' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l dry-run -d 'print the report and write nothing'
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -s o -l output -d 'write to this path instead of beside the input; - is standard output' -r
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l in-place -d 'change the checkpoint itself and keep the originals as NAME.orig'
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l compress -d 'compress a new archive by METHOD: none, gzip or zstd; as it was if not given' -a 'none gzip zstd' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l json -d 'print one JSON document'
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l color -d 'colour, by WHEN: auto (the default, on a terminal), always or never' -a 'auto always never' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from convert' -l help -d 'print the manual'
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l host -d 'the machine to run on: this one, or PROFILE: a file, a directory with a cpuinfo.img, or a name such as x86-64-v3 or znver3' -a 'x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5'
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l root -d 'where the programs\' files are, below DIR: / where they ran on this machine, or a container\'s root file system; may be repeated' -r
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l spool -d 'with --root, keep at most SIZE of the memory in a compressed archive in a temporary file, such as 500M' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l accept -d 'go ahead in spite of the refusals NAME or NAME:OBJECT: own-dispatch, compiled-isa, cached-cpuid, jit-code, shared-memory' -a 'own-dispatch compiled-isa cached-cpuid jit-code shared-memory' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l keep-cpuinfo -d 'leave cpuinfo.img as it is'
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l dry-run -d 'print the report and write nothing'
complete -c fpuimg -n '__fish_seen_subcommand_from level' -s o -l output -d 'write to this path instead of beside the input; - is standard output' -r
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l in-place -d 'change the checkpoint itself and keep the originals as NAME.orig'
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l compress -d 'compress a new archive by METHOD: none, gzip or zstd; as it was if not given' -a 'none gzip zstd' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l json -d 'print one JSON document'
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l color -d 'colour, by WHEN: auto (the default, on a terminal), always or never' -a 'auto always never' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from level' -l help -d 'print the manual'
complete -c fpuimg -n '__fish_seen_subcommand_from need' -l as -d 'print it as FORM: text, json, or for Kubernetes affinity, nfd-rule or annotations' -a 'hex f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 text json affinity nfd-rule annotations' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from need' -l root -d 'say what the code needs too, by the programs\' files below DIR: /, or a container\'s root file system; may be repeated' -r
complete -c fpuimg -n '__fish_seen_subcommand_from need' -l spool -d 'with --root, keep at most SIZE of the memory in a compressed archive in a temporary file, such as 500M' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from need' -l no-memory -d 'look at registers alone, not at the dumped memory'
complete -c fpuimg -n '__fish_seen_subcommand_from need' -l color -d 'colour, by WHEN: auto (the default, on a terminal), always or never' -a 'auto always never' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from need' -l help -d 'print the manual'
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -s o -l output -d 'write to this new file instead of standard output, which is -' -r
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -l format -d 'the FORMAT: json, criu for CRIU\'s cpuinfo.img, nfd for Node Feature Discovery, or tunables for glibc' -a 'json criu nfd tunables' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -l common -d 'the profile that all named machines share'
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -l list -d 'print the machines that have names'
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -l host -d 'describe this machine or PROFILE: another way to name one' -a 'x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5'
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -l every -d 'with --format=nfd and -o, keep the file of this machine in place: write it anew each INTERVAL, such as 10m' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -l color -d 'colour, by WHEN: auto (the default, on a terminal), always or never' -a 'auto always never' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -l help -d 'print the manual'
complete -c fpuimg -n '__fish_seen_subcommand_from profile' -a 'x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5'
complete -c fpuimg -n '__fish_seen_subcommand_from diff' -l json -d 'print one JSON document'
complete -c fpuimg -n '__fish_seen_subcommand_from diff' -l xsave-area -d 'read standard input, or a file that is nothing else, as a bare XSAVE area'
complete -c fpuimg -n '__fish_seen_subcommand_from diff' -l host -d 'for a bare area, or an ELF core that does not say so, the machine whose layout it has: this one or PROFILE' -a 'x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5'
complete -c fpuimg -n '__fish_seen_subcommand_from diff' -l color -d 'colour, by WHEN: auto (the default, on a terminal), always or never' -a 'auto always never' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from diff' -l help -d 'print the manual'
complete -c fpuimg -n '__fish_seen_subcommand_from completion' -l color -d 'colour, by WHEN: auto (the default, on a terminal), always or never' -a 'auto always never' -f -r
complete -c fpuimg -n '__fish_seen_subcommand_from completion' -l help -d 'print the manual'
complete -c fpuimg -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish' -f
complete -c fpuimg -n '__fish_seen_subcommand_from help' -a 'show check convert level need profile diff completion' -f
complete -c fpuimg -n '__fish_seen_subcommand_from version' -f
