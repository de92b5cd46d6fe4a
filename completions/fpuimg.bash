# bash completion for fpuimg, which printed this and is asked what may follow

_fpuimg() {
    local line reply directives words=() typed=${COMP_LINE:0:COMP_POINT}
    # A word ends at a blank that is not quoted; the quote under the cursor has no end
    # yet. COMP_WORDS would break at "=" too.
    local word='^[[:space:]]*(([^[:space:]\"'\'']|\\(.|$)|"([^\"]|\\.)*("|\\?$)|'\''[^'\'']*('\''|$))+)'
    while [[ $typed =~ $word ]]; do
        words+=("${BASH_REMATCH[1]}")
        typed=${typed:${#BASH_REMATCH[0]}}
    done
    [[ $typed ]] && words+=("")
    local cur=${words[${#words[@]}-1]}
    mapfile -t reply < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    directives=${reply[0]-}
    # Readline replaces only what follows the last "=", where that breaks words.
    local cut=
    [[ $cur == -*=* && $COMP_WORDBREAKS == *=* ]] && cut=${cur%%=*}=
    # A word that is offered begins as it was typed, with quotes and all.
    COMPREPLY=()
    for line in "${reply[@]:1}"; do
        line=${line%%$'\t'*}
        COMPREPLY+=("${line#"$cut"}")
    done
    local kind= alone
    [[ $directives == *files* ]] && kind=-f alone=default
    [[ $directives == *dirs* ]] && kind=-d alone=dirnames
    if [[ $kind && ${#COMPREPLY[@]} == 0 ]]; then
        compopt -o $alone # which knows quotes, backslashes, ~ and variables
    elif [[ $kind ]]; then
        compopt -o filenames
        local value=$cur
        [[ $cur == -*=* ]] && value=${cur#*=}
        mapfile -t reply < <(compgen $kind -- "$value")
        COMPREPLY+=("${reply[@]}")
    fi
    [[ $directives == *nospace* ]] && compopt -o nospace
    return 0
}
complete -F _fpuimg fpuimg
