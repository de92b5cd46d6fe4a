// Package memory reads the address space of a process from the images of a checkpoint:
// what is mapped where, and what the pages hold.
//
// # Where a page is
//
// mm-PID.img lists the mappings, files.img names what is mapped, and pagemap-PID.img says
// which pages follow each other in pages-N.img. Only what a process has changed is there:
// an anonymous page that it never wrote is zero, and a page of a file is as in the file.
// The pages of shared memory are in files of their own, by pagemap-shmem-ID.img. A page
// that an older dump has is in the directory that the link "parent" leads to. A [State]
// tells these apart, and names the pages that cannot be read at all.
//
// # Cost
//
// Opening reads mm, files and pagemap images, whose size does not depend on how much
// memory there is, but on how scattered it is. Pages are read as they are asked for.
//
// # Hostile input
//
// Mappings and runs of pages that overlap, do not ascend or lead out of the address space
// or of their pages file are refused, with file, offset and field. What is allocated is a
// small multiple of the images that are read. Of a parent, only regular files of the
// names above are opened.
package memory
