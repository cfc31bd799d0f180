/* Provisioning over BLE: protocomm with security 2, and network_provisioning's messages for the Wi-Fi, so that its
 * phone apps serve. The manager of network_provisioning is left out: the Wi-Fi is the core's own.
 *
 * A request comes in the host task of the radio, which waits for the core's answer.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#include "esp_bt.h"
#include "esp_srp.h"
#include "freertos/semphr.h"
#include "network_provisioning/network_config.h"
#include "protocomm.h"
#include "protocomm_ble.h"
#include "protocomm_security2.h"

enum { ANSWER_MAX = 128, ANSWER_MS = 10000, ASKED_MAX = TL_WIFI_SSID_MAX + 1 + TL_WIFI_PASSWORD_MAX };

static const char VERSION[] = "{\"prov\":{\"ver\":\"v1.1\",\"sec_ver\":2,\"sec_patch_ver\":1,\"cap\":[]}}";

/* As network_provisioning has it, little endian: apps look for it. */
static const uint8_t SERVICE[BLE_UUID128_VAL_LENGTH] = {
    0x07, 0xed, 0x9b, 0x2d, 0x0f, 0x06, 0x7c, 0x87, 0x9b, 0x43, 0x43, 0x6b, 0x4d, 0x24, 0x75, 0x17,
};

typedef struct {
    SemaphoreHandle_t answered;
    protocomm_t *session; /* NULL: not started */
    atomic_bool closing;
    uint8_t answer[ANSWER_MAX];
    size_t answer_n;
    char *salt, *verifier;
    protocomm_security2_params_t secret;
} provisioning_state;

static provisioning_state *radio;

/* --- the radio's task --- */

/* What the core says to it; false: nothing. */
static bool ask(tl_provisioning_endpoint endpoint, tl_span asked)
{
    const tl_event event = {.kind = TL_EVENT_PROVISIONING_REQUEST, .number = endpoint, .bytes = asked};
    xSemaphoreTake(radio->answered, 0); /* of one that was given up */
    return !radio->closing && tl_esp_post(&event) &&
           xSemaphoreTake(radio->answered, pdMS_TO_TICKS(ANSWER_MS)) == pdTRUE && !radio->closing;
}

static esp_err_t on_towline(uint32_t session_id, const uint8_t *in, ssize_t in_n, uint8_t **out, ssize_t *out_n, void *with)
{
    (void)session_id;
    (void)with;
    if (in_n < 0 || !ask(TL_PROVISIONING_TOWLINE, (tl_span){in, (size_t)in_n})) {
        return ESP_FAIL;
    }
    *out = malloc(radio->answer_n > 0 ? radio->answer_n : 1); /* protocomm frees it */
    if (*out == NULL) {
        return ESP_ERR_NO_MEM;
    }
    memcpy(*out, radio->answer, radio->answer_n);
    *out_n = (ssize_t)radio->answer_n;
    return ESP_OK;
}

static esp_err_t on_wifi_set(const network_prov_config_set_wifi_data_t *wanted, network_prov_ctx_t **with)
{
    uint8_t asked[ASKED_MAX];
    const size_t ssid = strnlen(wanted->ssid, TL_WIFI_SSID_MAX);
    const size_t password = strnlen(wanted->password, TL_WIFI_PASSWORD_MAX);
    (void)with;
    memcpy(asked, wanted->ssid, ssid);
    asked[ssid] = 0;
    memcpy(asked + ssid + 1, wanted->password, password);
    const bool taken = ask(TL_PROVISIONING_WIFI, (tl_span){asked, ssid + 1 + password});
    return taken && radio->answer_n == 1 ? ESP_OK : ESP_FAIL;
}

/* The core has begun to connect when it took the settings. */
static esp_err_t on_wifi_apply(network_prov_ctx_t **with)
{
    (void)with;
    return ESP_OK;
}

static esp_err_t on_wifi_status(network_prov_config_get_wifi_data_t *status, network_prov_ctx_t **with)
{
    /* The core's byte is the one on the air; this enumeration has another order. */
    static const network_prov_wifi_sta_state_t states[] = {
        NETWORK_PROV_WIFI_STA_CONNECTED,
        NETWORK_PROV_WIFI_STA_CONNECTING,
        NETWORK_PROV_WIFI_STA_DISCONNECTED,
        NETWORK_PROV_WIFI_STA_CONN_ATTEMPT_FAILED,
    };
    (void)with;
    memset(status, 0, sizeof *status);
    if (!ask(TL_PROVISIONING_WIFI, (tl_span){NULL, 0}) || radio->answer_n != 1 ||
        radio->answer[0] >= sizeof states / sizeof states[0]) {
        return ESP_FAIL;
    }
    status->wifi_state = states[radio->answer[0]];
    if (status->wifi_state == NETWORK_PROV_WIFI_STA_CONN_ATTEMPT_FAILED) {
        status->fail_reason = NETWORK_PROV_WIFI_STA_AP_NOT_FOUND;
    }
    return ESP_OK;
}

/* --- the core's side --- */

static bool record(void *with, tl_span user, tl_span password, uint8_t *to)
{
    char *salt = NULL, *verifier = NULL;
    int verifier_n = 0;
    (void)with;
    const bool made = esp_srp_gen_salt_verifier((const char *)user.at, (int)user.n, (const char *)password.at,
                                                (int)password.n, &salt, TL_PROVISIONING_SALT, &verifier,
                                                &verifier_n) == ESP_OK &&
                      verifier_n > 0 && (size_t)verifier_n <= TL_PROVISIONING_VERIFIER;
    if (made) {
        const size_t zeros = TL_PROVISIONING_VERIFIER - (size_t)verifier_n; /* a number loses those before it */
        memcpy(to, salt, TL_PROVISIONING_SALT);
        memset(to + TL_PROVISIONING_SALT, 0, zeros);
        memcpy(to + TL_PROVISIONING_SALT + zeros, verifier, (size_t)verifier_n);
    }
    free(salt);
    free(verifier);
    return made;
}

static void forget(void)
{
    if (radio->session != NULL) {
        protocomm_delete(radio->session);
        radio->session = NULL;
    }
    free(radio->salt);
    free(radio->verifier);
    radio->salt = radio->verifier = NULL;
}

static bool begin_session(const tl_provisioning_offer *offer)
{
    static network_prov_config_handlers_t wifi = {
        .wifi_get_status_handler = on_wifi_status,
        .wifi_set_config_handler = on_wifi_set,
        .wifi_apply_config_handler = on_wifi_apply,
    };
    static protocomm_ble_name_uuid_t endpoints[] = {
        {"prov-session", 0xFF51}, {"prov-config", 0xFF52}, {"proto-ver", 0xFF53}, {"towline", 0xFF54},
    };
    protocomm_ble_config_t config = {
        .nu_lookup = endpoints,
        .nu_lookup_count = sizeof endpoints / sizeof endpoints[0],
    };
    const size_t n = offer->service_name.n < MAX_BLE_DEVNAME_LEN ? offer->service_name.n : MAX_BLE_DEVNAME_LEN;
    memcpy(config.device_name, offer->service_name.at, n);
    memcpy(config.service_uuid, SERVICE, sizeof config.service_uuid);
    radio->secret = (protocomm_security2_params_t){radio->salt, (uint16_t)offer->salt.n, radio->verifier,
                                                   (uint16_t)offer->verifier.n};
    return protocomm_ble_start(radio->session, &config) == ESP_OK &&
           protocomm_set_version(radio->session, "proto-ver", VERSION) == ESP_OK &&
           protocomm_set_security(radio->session, "prov-session", &protocomm_security2, &radio->secret) == ESP_OK &&
           protocomm_add_endpoint(radio->session, "prov-config", network_prov_config_data_handler, &wifi) == ESP_OK &&
           protocomm_add_endpoint(radio->session, "towline", on_towline, NULL) == ESP_OK;
}

static bool start(void *with, const tl_provisioning_offer *offer)
{
    (void)with;
    radio->closing = false;
    radio->session = protocomm_new();
    radio->salt = tl_esp_text(offer->salt);
    radio->verifier = tl_esp_text(offer->verifier);
    if (radio->session == NULL || radio->salt == NULL || radio->verifier == NULL || !begin_session(offer)) {
        if (radio->session != NULL) {
            protocomm_ble_stop(radio->session);
        }
        forget();
        return false;
    }
    return true;
}

static void answer(void *with, tl_span bytes)
{
    (void)with;
    radio->answer_n = bytes.n < ANSWER_MAX ? bytes.n : ANSWER_MAX;
    if (bytes.n > 0) {
        memcpy(radio->answer, bytes.at, radio->answer_n);
    }
    xSemaphoreGive(radio->answered);
}

static void stop(void *with)
{
    (void)with;
    radio->closing = true;
    xSemaphoreGive(radio->answered); /* who waits for an answer must not hold the radio up */
    if (radio->session != NULL) {
        protocomm_ble_stop(radio->session);
    }
    forget();
    tl_esp_provisioning_unused();
}

void tl_esp_provisioning_unused(void)
{
#if CONFIG_IDF_TARGET_ESP32
    const esp_bt_mode_t all = ESP_BT_MODE_BTDM;
#else
    const esp_bt_mode_t all = ESP_BT_MODE_BLE;
#endif
    if (radio->session == NULL) {
        esp_bt_mem_release(all); /* for good: the radio is back with the next start of the chip */
    }
}

const tl_port_provisioning *tl_esp_provisioning(void)
{
    static const tl_port_provisioning group = {NULL, record, start, answer, stop};
    radio = calloc(1, sizeof *radio);
    configASSERT(radio != NULL);
    radio->answered = xSemaphoreCreateBinary();
    configASSERT(radio->answered != NULL);
    return &group;
}
