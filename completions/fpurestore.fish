# fish completion for fpurestore; fpurestore prints it

complete -c fpurestore -s t -l target -d 'the process to restore into' -f -r
complete -c fpurestore -l tree -d 'its descendants that the checkpoint holds, too'
complete -c fpurestore -s D -l dir -d 'the images directory; the current one if no FILE is named' -f -a '(__fish_complete_directories)' -r
complete -c fpurestore -l force -d 'go ahead where registers are lost'
complete -c fpurestore -l dry-run -d 'stop nothing; print the thread map and the plan'
complete -c fpurestore -l save -d 'write the live state to this new directory, before a restore or alone' -f -a '(__fish_complete_directories)' -r
complete -c fpurestore -l map -d 'put the image of one thread into another, IMGTID=TID' -f -r
complete -c fpurestore -l ignore-missing -d 'leave out threads that only one side has'
complete -c fpurestore -l timeout -d 'how long to wait for the threads to stop' -f -r
complete -c fpurestore -l json -d 'print one JSON document'
complete -c fpurestore -l color -d 'colour: when is auto, always or never' -a 'auto always never' -f -r
complete -c fpurestore -l completion -d 'print the script that completes fpurestore in SHELL: bash, zsh or fish' -a 'bash zsh fish' -f -r
complete -c fpurestore -l version -d 'print the version and exit'
complete -c fpurestore -l help -d 'print the manual'
