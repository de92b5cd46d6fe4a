# ticker: a bash script that works with strings and looks at the results, as ticker.py
# does:
#
#   bash ticker.sh STATUS GO
#
# Nothing is ever sent to or by its socket: it sleeps there, without a process for that.
trap '' ILL # else bash ends by kill, and the kernel does not log where it was
exec 3<>/dev/udp/127.0.0.1/9

memory() {
	local text='' i
	for i in {32..126}; do
		printf -v i '\\x%x' "$i"
		printf -v i "$i"
		text+=${i}
	done
	text+=$text
	local upper=${text^^} other=${text//a/bcd}
	[[ ${#text} = 190 && ${#other} = 194 && ${upper:65:26} = ABCDEFGHIJKLMNOPQRSTUVWXYZ && ${text%%z*} = *'wxy' &&
		${text##*z} = '{|}~' && $text =~ Z(.*)a && ${#BASH_REMATCH[1]} = 101 && $text = *'~ !"'* ]]
}

late() {
	local words hex
	read -r -a words <<<"one two  three"
	printf -v hex '%x %.3f' 48879 2.5
	[[ ${words[2]} = three && $hex = 'beef 2.500' ]] && ((1 << 40 == 1099511627776))
}

status=$1 go=$2
lost=
memory || lost=memory
for ((n = 1; ; n++)); do
	if [[ -e $go ]]; then
		late || lost=late
		memory || lost=memory
	fi
	state='OK 1/1'
	[[ ! $lost ]] || state="BAD 0/1 LOST:$lost"
	echo "tick $n pid $$ $state" >>"$status"
	read -t 0.1 -u 3
done
