/* One HTTPS request at a time, by esp_http_client in a task of its own that ends with it. */
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "esp_crt_bundle.h"
#include "esp_http_client.h"
#include "esp_timer.h"
#include "freertos/event_groups.h"
#include "freertos/semphr.h"

enum { PIECE = 1024 };

enum { GIVEN_BACK = 1 << 0, STOP = 1 << 1 };

typedef struct {
    SemaphoreHandle_t lock; /* of `busy` and `number` */
    EventGroupHandle_t bits;
    bool busy;
    uint32_t number;
    /* Of the task alone while it runs. */
    uint8_t piece[PIECE];
    tl_esp_address to;
    esp_http_client_method_t method;
    char *authorization, *body; /* NULL: none */
    size_t body_n;
    int64_t until_us;
} fetch_state;

static fetch_state *fetch;

static bool stopped(void)
{
    return (xEventGroupGetBits(fetch->bits) & STOP) != 0;
}

static bool late(void)
{
    return esp_timer_get_time() > fetch->until_us;
}

/* --- the task --- */

static bool tell(tl_event *event)
{
    event->number = fetch->number;
    return !stopped() && tl_esp_post(event);
}

static bool lend(size_t n)
{
    tl_event event = {.kind = TL_EVENT_FETCH_DATA, .bytes = {fetch->piece, n}};
    xEventGroupClearBits(fetch->bits, GIVEN_BACK);
    if (!tell(&event)) {
        return false;
    }
    const int64_t left_ms = (fetch->until_us - esp_timer_get_time()) / 1000;
    const TickType_t patience = pdMS_TO_TICKS(left_ms > 0 ? (uint32_t)left_ms : 0);
    xEventGroupWaitBits(fetch->bits, GIVEN_BACK | STOP, pdFALSE, pdFALSE, patience);
    return !stopped() && !late();
}

/* NULL: the body was handed over whole. */
static const char *read_body(esp_http_client_handle_t client)
{
    for (;;) {
        const int n = esp_http_client_read(client, (char *)fetch->piece, PIECE);
        if (n < 0) {
            return "the answer broke off";
        }
        if (n == 0) {
            return esp_http_client_is_complete_data_received(client) ? NULL : "the answer broke off";
        }
        if (!lend((size_t)n)) {
            return late() ? "not over in time" : "the core is stuck";
        }
    }
}

static const char *exchange(esp_http_client_handle_t client)
{
    if (esp_http_client_open(client, (int)fetch->body_n) != ESP_OK) {
        return "could not connect";
    }
    for (size_t sent = 0; sent < fetch->body_n;) {
        const int n = esp_http_client_write(client, fetch->body + sent, (int)(fetch->body_n - sent));
        if (n <= 0) {
            return "sending failed";
        }
        sent += (size_t)n;
    }
    const int64_t length = esp_http_client_fetch_headers(client); /* 0: not told */
    if (length < 0) {
        return "no answer";
    }
    tl_event head = {.kind = TL_EVENT_FETCH_HEAD,
                     .status = (uint16_t)esp_http_client_get_status_code(client),
                     .length = length > 0 && length < TL_LENGTH_NOT_TOLD ? (uint32_t)length : TL_LENGTH_NOT_TOLD};
    return tell(&head) ? read_body(client) : "the core is stuck";
}

static esp_http_client_handle_t new_client(void)
{
    const esp_http_client_config_t config = {
        .host = fetch->to.host,
        .port = fetch->to.port,
        .path = fetch->to.path,
        .method = fetch->method,
        .transport_type = HTTP_TRANSPORT_OVER_SSL,
        .cert_pem = fetch->to.ca,
        .crt_bundle_attach = fetch->to.ca == NULL ? esp_crt_bundle_attach : NULL,
        .timeout_ms = TL_FETCH_STEP_MS,
        .disable_auto_redirect = true,
        .buffer_size = PIECE,
        .buffer_size_tx = PIECE,
    };
    return esp_http_client_init(&config);
}

static bool write_head(esp_http_client_handle_t client)
{
    if (fetch->authorization != NULL &&
        esp_http_client_set_header(client, "Authorization", fetch->authorization) != ESP_OK) {
        return false;
    }
    return fetch->body == NULL || esp_http_client_set_header(client, "Content-Type", "application/json") == ESP_OK;
}

static void forget(void)
{
    tl_esp_address_end(&fetch->to);
    free(fetch->authorization);
    free(fetch->body);
    fetch->authorization = fetch->body = NULL;
}

static void run(void *with)
{
    (void)with;
    const char *why = "no memory";
    esp_http_client_handle_t client = new_client();
    if (client != NULL) {
        why = write_head(client) ? exchange(client) : why;
        esp_http_client_cleanup(client); /* its TLS session is gone before the core may begin another */
    }
    forget();
    xSemaphoreTake(fetch->lock, portMAX_DELAY);
    const bool quiet = stopped();
    const tl_event end = {.kind = why == NULL ? TL_EVENT_FETCH_END : TL_EVENT_FETCH_FAILED,
                          .number = fetch->number,
                          .why = why};
    fetch->busy = false;
    xSemaphoreGive(fetch->lock);
    if (!quiet) {
        tl_esp_post_last(&end);
    }
    vTaskDelete(NULL);
}

/* --- the core's side --- */

static bool method_of(const char *name, esp_http_client_method_t *method)
{
    static const struct {
        const char *name;
        esp_http_client_method_t method;
    } known[] = {{"GET", HTTP_METHOD_GET}, {"POST", HTTP_METHOD_POST}, {"PUT", HTTP_METHOD_PUT}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) == 0) {
            *method = known[i].method;
            return true;
        }
    }
    return false;
}

static char *bearer(tl_span token)
{
    static const char word[] = "Bearer ";
    char *text = malloc(sizeof word + token.n);
    if (text != NULL) {
        memcpy(text, word, sizeof word - 1);
        memcpy(text + sizeof word - 1, token.at, token.n);
        text[sizeof word - 1 + token.n] = '\0';
    }
    return text;
}

static bool remember(const tl_fetch_request *request)
{
    fetch->body_n = request->body.n;
    fetch->body = request->body.n > 0 ? tl_esp_text(request->body) : NULL;
    fetch->authorization = request->bearer.n > 0 ? bearer(request->bearer) : NULL;
    fetch->until_us = esp_timer_get_time() + (int64_t)TL_FETCH_ALL_MS * 1000;
    return tl_esp_address_copy(&fetch->to, &request->to) && method_of(request->method, &fetch->method) &&
           (fetch->body != NULL || request->body.n == 0) && (fetch->authorization != NULL || request->bearer.n == 0);
}

static bool claim(void)
{
    xSemaphoreTake(fetch->lock, portMAX_DELAY);
    const bool free_now = !fetch->busy;
    if (free_now) {
        fetch->busy = true;
        fetch->number = fetch->number % UINT32_MAX + 1;
    }
    xSemaphoreGive(fetch->lock);
    return free_now;
}

static uint32_t start(void *with, const tl_fetch_request *request)
{
    (void)with;
    if (!claim()) {
        return 0;
    }
    xEventGroupClearBits(fetch->bits, GIVEN_BACK | STOP);
    const uint32_t number = fetch->number;
    if (!remember(request) ||
        xTaskCreate(run, "towline_fetch", TL_ESP_STACK_TLS, NULL, TL_ESP_PRIORITY, NULL) != pdPASS) {
        forget();
        fetch->busy = false; /* no task of ours runs */
        return 0;
    }
    return number;
}

static void release(void *with, tl_span data)
{
    (void)with;
    (void)data;
    xEventGroupSetBits(fetch->bits, GIVEN_BACK);
}

static void stop(void *with)
{
    (void)with;
    xEventGroupSetBits(fetch->bits, STOP);
}

const tl_port_fetch *tl_esp_fetch(void)
{
    static const tl_port_fetch group = {NULL, start, release, stop};
    fetch = calloc(1, sizeof *fetch);
    configASSERT(fetch != NULL);
    fetch->lock = xSemaphoreCreateMutex();
    fetch->bits = xEventGroupCreate();
    configASSERT(fetch->lock != NULL && fetch->bits != NULL);
    return &group;
}
