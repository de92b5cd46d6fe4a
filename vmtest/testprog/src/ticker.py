# ticker: a Python program that works with strings and looks at the results.
#
#   python3 ticker.py STATUS GO [hash]
#
# It appends lines to the file STATUS as lazycall does. The first is about work in memory
# that the C library does for Python, and so are all once the file GO exists; then also
# about functions of the C and the maths library that it calls for the first time. With
# the word hash all are about digests of OpenSSL, too: new ones, and one begun before.
# Between them it is idle, as it is to be when it is dumped.
import math
import os
import sys
import time

status, go, *more = sys.argv[1:]
block = bytes(range(256)) * 300
if more:
    import hashlib

    begun = hashlib.sha256(block)


def memory():
    text = "".join(chr(c) for c in range(32, 127)) * 50
    return (
        block.find(b"\xff\x00\x01") == 255 and block.count(b"\x07") == 300
        and bytearray(70000) == b"\0" * 70000 and block[1:] + block[:1] != block
        and sorted(text.split("~"))[0] == "" and text.upper().lower().find("z{") == 90
        and text.replace("a", "bcd").count("d") == 100
    )


def late():
    return (
        abs(math.exp(1.5) - 4.4816890703) < 1e-9 and abs(math.sin(2.0) - 0.9092974268) < 1e-9
        and abs(math.log(10.0) - 2.3025850930) < 1e-9 and abs(math.pow(1.1, 7.5) - 2.0438317371) < 1e-9
        and math.fmod(7.5, 2.0) == 1.5 and float("1.25e3") == 1250 and "%.3f" % 2.5 == "2.500"
        and time.strftime("%Y", time.gmtime(0)) == "1970" and os.getppid() >= 0
    )


known = {
    "md5": "97ab7d414a0df513",
    "sha1": "a95b7b1b4576c981",
    "sha256": "f8b0585eb91f58c0",
    "sha512": "88490cfde452f8f6",
    "sha3_256": "df5ad351b1f7fedf",
    "blake2b": "244376fb797ae6c6",
}


def digests():
    both = begun.copy()
    both.update(block)
    return (
        all(hashlib.new(name, block).hexdigest()[:16] == want for name, want in known.items())
        and hashlib.pbkdf2_hmac("sha512", b"word", b"salt", 50).hex()[:16] == "97cd8d010f348e65"
        and both.hexdigest()[:16] == "41dae6b28c30ab57"
    )


def check():
    return "memory" if not memory() else "digests" if more and not digests() else ""


n = 0
lost = check()
while True:
    n += 1
    if os.access(go, os.F_OK):
        lost = check() or ("" if late() else "late") or lost
    line = "tick %d pid %d %s\n" % (n, os.getpid(), "BAD 0/1 LOST:" + lost if lost else "OK 1/1")
    fd = os.open(status, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(fd, line.encode())
    os.close(fd)
    time.sleep(0.1)
