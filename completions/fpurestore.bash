# bash completion for fpurestore, which printed this and is asked what may follow

_fpurestore() {
    local line reply directives words typed=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$typed"
    [[ $typed == *[[:space:]] ]] && words+=("")
    local cur=${words[${#words[@]}-1]}
    mapfile -t reply < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    directives=${reply[0]-}
    # Readline replaces only what follows the last "=", where that breaks words.
    local cut=
    [[ $cur == -*=* && $COMP_WORDBREAKS == *=* ]] && cut=${cur%%=*}=
    COMPREPLY=()
    for line in "${reply[@]:1}"; do
        line=${line%%$'\t'*}
        COMPREPLY+=("${line#"$cut"}")
    done
    local kind=
    [[ $directives == *files* ]] && kind=-f
    [[ $directives == *dirs* ]] && kind=-d
    if [[ $kind ]]; then
        compopt -o filenames 2>/dev/null
        local value=$cur
        [[ $cur == -*=* ]] && value=${cur#*=}
        mapfile -t reply < <(compgen "$kind" -- "$value")
        COMPREPLY+=("${reply[@]}")
    fi
    [[ $directives == *nospace* ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _fpurestore fpurestore
