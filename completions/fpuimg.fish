# fish completion for fpuimg, which printed this and is asked what may follow

function __fpuimg_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l reply ($words[1] __complete $words[2..-1] $cur 2>/dev/null)
    if set -q reply[2]
        printf '%s\n' $reply[2..-1]
    end
    set -l paths
    if string match -q '*files*' -- "$reply[1]"
        set paths __fish_complete_path
    else if string match -q '*dirs*' -- "$reply[1]"
        set paths __fish_complete_directories
    end
    if set -q paths[1]
        set -l prefix (string match -r -- '^-.*?=' $cur)
        for path in ($paths (string replace -- "$prefix" '' $cur))
            printf '%s\n' "$prefix$path"
        end
    end
end
complete -c fpuimg -f -a '(__fpuimg_complete)'
