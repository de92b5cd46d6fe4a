# bash completion for fpuimg; fpuimg prints it

_fpuimg() {
    local cur=${COMP_WORDS[COMP_CWORD]} key=${COMP_WORDS[COMP_CWORD-1]} words= paths=
    # Readline takes "=" for a word.
    if [[ $cur == = ]]; then
        key+== cur=
    elif [[ $key == = ]]; then
        key=${COMP_WORDS[COMP_CWORD-2]}=
    fi
    case $key in
    --as= | --as) words='hex f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 text json affinity nfd-rule annotations' ;;
    --component= | --component) words='x87 SSE AVX BNDREGS BNDCSR opmask ZMM_Hi256 Hi16_ZMM PT PKRU PASID CET_U CET_S HDC UINTR LBR HWP TILECFG TILEDATA APX' ;;
    --tid= | --tid) : ;;
    --host=) words='x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5' paths=default ;;
    --elf-core= | --elf-core) paths=default ;;
    --color= | --color) words='auto always never' ;;
    --hosts= | --hosts) paths=default ;;
    --root= | --root) paths=default ;;
    --spool= | --spool) : ;;
    --criu= | --criu) : ;;
    --html= | --html) paths=default ;;
    --to= | --to) words='none fxsave xsave' ;;
    --features= | --features) words='x87 SSE AVX BNDREGS BNDCSR opmask ZMM_Hi256 Hi16_ZMM PT PKRU PASID CET_U CET_S HDC UINTR LBR HWP TILECFG TILEDATA APX' ;;
    --output= | --output | -o) paths=default ;;
    --compress= | --compress) words='none gzip zstd' ;;
    --accept= | --accept) words='own-dispatch compiled-isa cached-cpuid jit-code shared-memory' ;;
    --format= | --format) words='json criu nfd tunables' ;;
    --every= | --every) : ;;
    *)
        case ${COMP_WORDS[1]} in
        show) if [[ $cur == -* ]]; then words='--regs --json --redact --xsave-area --host --help --as= --component= --tid= --host= --elf-core= --color='; else paths=default; fi ;;
        check) if [[ $cur == -* ]]; then words='--host --no-memory --json --xsave-area --help --host= --hosts= --root= --spool= --criu= --html= --color='; else paths=default; fi ;;
        convert) if [[ $cur == -* ]]; then words='--host --force --keep-cpuinfo --dry-run --in-place --json --help --to= --features= --host= --root= --spool= --output= --compress= --color='; else paths=default; fi ;;
        level) if [[ $cur == -* ]]; then words='--host --keep-cpuinfo --dry-run --in-place --json --help --host= --root= --spool= --accept= --output= --compress= --color='; else paths=default; fi ;;
        need) if [[ $cur == -* ]]; then words='--no-memory --help --as= --root= --spool= --color='; else paths=default; fi ;;
        profile) if [[ $cur == -* ]]; then words='--common --list --host --help --output= --format= --host= --every= --color='; else words='x86-64 x86-64-v2 x86-64-v3 x86-64-v4 core2 nehalem westmere sandybridge ivybridge haswell broadwell skylake skylake-avx512 cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake arrowlake-s sapphirerapids emeraldrapids graniterapids silvermont goldmont goldmont-plus tremont gracemont sierraforest knl btver1 btver2 bdver1 bdver2 bdver3 bdver4 znver1 znver2 znver3 znver4 znver5' paths=default; fi ;;
        diff) if [[ $cur == -* ]]; then words='--json --xsave-area --host --help --host= --color='; else paths=default; fi ;;
        completion) if [[ $cur == -* ]]; then words='--help --color='; else words='bash zsh fish'; fi ;;
        help) words='show check convert level need profile diff completion' ;;
        version) : ;;
        esac
        ((COMP_CWORD == 1)) && words='show check convert level need profile diff completion help version --help --version' paths=
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    [[ ${COMPREPLY-} == *= ]] && compopt -o nospace
    if [[ $paths && ! ${COMPREPLY-} ]]; then
        compopt -o "$paths" # knows quotes, ~ and variables
    elif [[ $paths ]]; then
        compopt -o filenames
        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
    fi
    return 0
}
complete -F _fpuimg fpuimg
