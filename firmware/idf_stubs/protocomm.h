#ifndef STUB_PROTOCOMM_H
#define STUB_PROTOCOMM_H

#include <stdint.h>
#include <sys/types.h>

#include "esp_err.h"

typedef struct protocomm_security protocomm_security_t;
typedef struct protocomm protocomm_t;
typedef struct protocomm_security2_params {
    const char *salt;
    uint16_t salt_len;
    const char *verifier;
    uint16_t verifier_len;
} protocomm_security2_params_t;
typedef esp_err_t (*protocomm_req_handler_t)(uint32_t session_id, const uint8_t *inbuf, ssize_t inlen,
                                             uint8_t **outbuf, ssize_t *outlen, void *priv_data);

protocomm_t *protocomm_new(void);
void protocomm_delete(protocomm_t *pc);
esp_err_t protocomm_add_endpoint(protocomm_t *pc, const char *ep_name, protocomm_req_handler_t h, void *priv_data);
esp_err_t protocomm_set_security(protocomm_t *pc, const char *ep_name, const protocomm_security_t *sec,
                                 const void *sec_params);
esp_err_t protocomm_set_version(protocomm_t *pc, const char *ep_name, const char *version);

#endif
