#include "address.h"

#include <stdlib.h>

bool tl_esp_address_copy(tl_esp_address *to, const tl_address *from)
{
    *to = (tl_esp_address){.port = from->port};
    if (!from->secure || from->host.n == 0) {
        return false;
    }
    to->host = tl_esp_text(from->host);
    to->path = tl_esp_text(from->path);
    to->ca = from->ca.n > 0 ? tl_esp_text(from->ca) : NULL;
    return to->host != NULL && to->path != NULL && (to->ca != NULL || from->ca.n == 0);
}

void tl_esp_address_end(tl_esp_address *address)
{
    free(address->host);
    free(address->path);
    free(address->ca);
    *address = (tl_esp_address){0};
}
