# bash completion for fpurestore; fpurestore prints it

_fpurestore() {
    local cur=${COMP_WORDS[COMP_CWORD]} key=${COMP_WORDS[COMP_CWORD-1]} words= paths=
    # Readline takes "=" for a word.
    if [[ $cur == = ]]; then
        key+== cur=
    elif [[ $key == = ]]; then
        key=${COMP_WORDS[COMP_CWORD-2]}=
    fi
    case $key in
    --target= | --target | -t) : ;;
    --dir= | --dir | -D) paths=dirnames ;;
    --save= | --save) paths=dirnames ;;
    --map= | --map) : ;;
    --timeout= | --timeout) : ;;
    --color= | --color) words='auto always never' ;;
    --completion= | --completion) words='bash zsh fish' ;;
    *)
        if [[ $cur == -* ]]; then words='--tree --force --dry-run --ignore-missing --json --version --help --target= --dir= --save= --map= --timeout= --color= --completion='; else paths=default; fi
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
complete -F _fpurestore fpurestore
