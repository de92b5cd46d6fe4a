// Package convert changes the format of the FPU records in a checkpoint.
//
// [NewPlan] reads a checkpoint and asks convert/compat what a target means for
// each thread; nothing is written. The plan is a value that can be printed. A plan
// that is not refused is carried out by [Plan.WriteDir], which makes a new
// directory, [Plan.WriteFile], for one core image, or [Plan.InPlace].
//
// A plan holds, for each file that changes, what is decided of it or edits of the old
// content ([Plan.Edit]); a core image is made when it is written. A file that is edited is cloned, or streams by in an archive, and is
// never held whole. What is to be replaced is compared with what the plan was made from.
//
// The checkpoints of an archive become a new archive by [WriteArchive]. It copies the
// archive block by block, since archive/tar would write headers of its own, and
// rewrites only the images that change.
//
// # All or nothing
//
// A new file or directory is built in a hidden directory beside its place, the stage,
// and appears by one rename. In place, the new files are made durable first, then one commit record
// is; from there on every reader reports the checkpoint as interrupted until the
// renames are done, and [Recover], which every conversion calls first, does them.
// A process that is killed leaves the old checkpoint, the new one or one that the
// next conversion completes.
//
// Locks of flock(2) keep conversions apart; they are advisory, and other programs are
// noticed by what they change.
//
// # Files of others
//
// Root may convert what another user owns and changes meanwhile. Every name is looked
// up once, in a directory that is open already, and what it names is used through its
// descriptor. The stage belongs to the user who converts, and nobody else can enter
// it; one that anybody else may have made is refused. No file gets a right that its
// original did not have, see [Plan.WriteDir].
//
// # What stays
//
// Only FPU records and the length words around them change, and cpuinfo.img where
// there is one. Every other file is cloned with its mode, owner, times and extended
// attributes; holes stay holes and hard links stay hard links.
package convert
