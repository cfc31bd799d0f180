/* Where a connection goes, as IDF's clients take it: copies with a NUL at their end, for as long as it lives. */
#ifndef TOWLINE_ESP_ADDRESS_H
#define TOWLINE_ESP_ADDRESS_H

#include "parts.h"

typedef struct {
    char *host, *path, *ca; /* `ca` NULL: the roots that IDF brings */
    int port;
} tl_esp_address;

/* False: it may not be dialled from here (nothing goes out without TLS: a chip has no broker or gateway of its
 * own), or there is no memory. Either way tl_esp_address_end is due. */
bool tl_esp_address_copy(tl_esp_address *, const tl_address *from);
void tl_esp_address_end(tl_esp_address *);

#endif
