# ticker: a Perl program that works with strings and looks at the results, as ticker.py
# does:
#
#   perl ticker.pl STATUS GO
use strict;
use Fcntl;
use POSIX ();

my ($status, $go) = @ARGV;

sub memory {
	my $block = join("", map { chr } 0 .. 255) x 300;
	my $text = join("", map { chr } 32 .. 126) x 50;
	(my $other = $text) =~ s/a/bcd/g;
	my @words = sort split /~/, $text;
	return index($block, "\xff\x00\x01") == 255 && ($block =~ tr/\x07//) == 300
		&& substr($block, 1) . substr($block, 0, 1) ne $block && rindex($text, "~") == length($text) - 1
		&& ($other =~ tr/d//) == 100 && @words == 50 && index(lc(uc $text), "z{") == 90
		&& unpack("%32C*", $text) == 50 * (32 + 126) * 95 / 2 && $text =~ /z\{\|}~ !"/;
}

sub late {
	return abs(exp(1.5) - 4.4816890703) < 1e-9 && abs(sin(2) - 0.9092974268) < 1e-9
		&& abs(log(10) - 2.3025850930) < 1e-9 && abs(1.1 ** 7.5 - 2.0438317371) < 1e-9
		&& POSIX::fmod(7.5, 2) == 1.5 && "1.25e3" + 0 == 1250 && sprintf("%.3f", 2.5) eq "2.500"
		&& POSIX::strftime("%Y", gmtime 0) eq "1970";
}

my $lost = memory() ? "" : "memory";
for (my $n = 1; ; $n++) {
	$lost = !memory() ? "memory" : !late() ? "late" : $lost if -e $go;
	sysopen my $file, $status, O_WRONLY | O_CREAT | O_APPEND, 0644 or die $!;
	syswrite $file, "tick $n pid $$ " . ($lost ? "BAD 0/1 LOST:$lost" : "OK 1/1") . "\n";
	close $file;
	select undef, undef, undef, 0.1;
}
