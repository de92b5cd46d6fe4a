// Package checkpoint finds and opens checkpoints.
//
// [Open] and [OpenAll] tell by content what a path holds: a CRIU images directory or one
// above it, a core image, the archives that container engines make of a checkpoint
// directory, container images, captures of criu-image-streamer, ELF cores and, if asked
// for, bare XSAVE areas; what is none of them is a [*ForeignError]. They give
// each [Checkpoint], whose threads are decoded one by one as they are asked for.
//
// # Files
//
// A directory and an archive are [codec.Files]; the blobs of an OCI image layout are
// archives. An archive is read in one pass, from a file or a stream, and never unpacked:
// the few images that tell of registers are held in memory, all else is skipped, in a
// plain archive by seeking. A file that is not held can be opened later where the archive
// is plain. [Rewrite] copies an archive with some files replaced.
//
// # Hostile input
//
// One budget bounds what an input may make the reader hold and decompress, over all blobs
// and members together. Names in an archive are only looked up, never used as paths; of
// two members of one name the last counts, as for tar.
package checkpoint
