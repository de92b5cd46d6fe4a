// Reads requests from standard input, each a byte that names the type of message, a
// 32-bit length and the message, and answers each with the length and bytes of what
// protobuf-c packs of it after unpacking it, or with the length 0xffffffff if it does
// not unpack. Numbers are in the machine's byte order.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "criu.pb-c.h"

static const ProtobufCMessageDescriptor *const types[] = {
	&core_entry__descriptor, &cpuinfo_entry__descriptor, &pstree_entry__descriptor, &inventory_entry__descriptor,
};

int main(void)
{
	int type;

	while ((type = getchar()) != EOF) {
		uint32_t size;
		uint8_t *buf;
		ProtobufCMessage *m;

		if (fread(&size, sizeof(size), 1, stdin) != 1 || !(buf = malloc(size + 1)) || fread(buf, 1, size, stdin) != size)
			return 1;
		m = protobuf_c_message_unpack(types[type], NULL, size, buf);
		free(buf);
		size = UINT32_MAX;
		if (m)
			size = protobuf_c_message_get_packed_size(m);
		fwrite(&size, sizeof(size), 1, stdout);
		if (!m)
			continue;
		if (!(buf = malloc(size + 1)))
			return 1;
		protobuf_c_message_pack(m, buf);
		fwrite(buf, 1, size, stdout);
		free(buf);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	return 0;
}
