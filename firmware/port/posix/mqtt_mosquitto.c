#include "mqtt_mosquitto.h"

#include <errno.h>
#include <mosquitto.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "lws_context.h"

#define LOOK_MS 1000 /* mosquitto_loop_misc sends the pings: at least so often */
#define LOOK_TICKS 8u

struct tl_mqtt_connection {
    tl_mqtt *owner;
    struct mosquitto *client;
    SSL_CTX *tls; /* NULL: in the clear, to this machine */
    tl_lws_address to;
    uint16_t keepalive_s;
    int woken;       /* an eventfd */
    bool left;       /* under the owner's lock: nobody is told of it any more */
    bool connected, over;
    const char *why; /* the first reason */
};

static void end(tl_mqtt_connection *c, const char *why)
{
    c->over = true;
    if (c->why == NULL) {
        c->why = why;
    }
}

static bool is_left(tl_mqtt_connection *c)
{
    pthread_mutex_lock(&c->owner->lock);
    const bool left = c->left;
    pthread_mutex_unlock(&c->owner->lock);
    return left;
}

static void tell(tl_mqtt_connection *c, tl_event event)
{
    if (!is_left(c) && !tl_queue_post(c->owner->queue, &event)) {
        end(c, "the core is stuck");
    }
}

/* --- what the client tells, in the connection's thread --- */

static void on_connect(struct mosquitto *client, void *of, int code)
{
    (void)client;
    tl_mqtt_connection *c = of;
    if (code != 0) {
        end(c, "the broker refused");
        return;
    }
    c->connected = true;
    tell(c, (tl_event){.kind = TL_EVENT_MQTT_CONNECTED});
}

static void on_publish(struct mosquitto *client, void *of, int number)
{
    (void)client;
    tell(of, (tl_event){.kind = TL_EVENT_MQTT_TAKEN, .number = (uint32_t)number});
}

/* The one place for a message: the broker waits while the core has it. False: nobody wants it any more. */
static bool take_place(tl_mqtt_connection *c)
{
    tl_mqtt *m = c->owner;
    pthread_mutex_lock(&m->lock);
    while (m->lent && !c->left) {
        pthread_cond_wait(&m->changed, &m->lock);
    }
    const bool taken = !c->left;
    m->lent = m->lent || taken;
    pthread_mutex_unlock(&m->lock);
    return taken;
}

static void give_place_back(tl_mqtt *m)
{
    pthread_mutex_lock(&m->lock);
    m->lent = false;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

static void on_message(struct mosquitto *client, void *of, const struct mosquitto_message *message)
{
    (void)client;
    tl_mqtt_connection *c = of;
    tl_mqtt *m = c->owner;
    const size_t topic_n = strlen(message->topic), n = (size_t)message->payloadlen;
    if (topic_n > sizeof m->topic || n > sizeof m->message || !take_place(c)) {
        return;
    }
    memcpy(m->topic, message->topic, topic_n);
    memcpy(m->message, message->payload != NULL ? message->payload : "", n);
    const tl_event event = {
        .kind = TL_EVENT_MQTT_MESSAGE, .topic = {m->topic, topic_n}, .bytes = {m->message, n}};
    if (!tl_queue_post(m->queue, &event)) {
        give_place_back(m);
        end(c, "the core is stuck");
    }
}

/* --- TLS: with the device's own certificate; the broker's must name the host --- */

static bool show(SSL_CTX *tls, tl_span certificate, tl_span key)
{
    BIO *text = BIO_new_mem_buf(certificate.at, (int)certificate.n);
    BIO *secret = BIO_new_mem_buf(key.at, (int)key.n);
    X509 *own = PEM_read_bio_X509(text, NULL, NULL, NULL);
    EVP_PKEY *private_key = PEM_read_bio_PrivateKey(secret, NULL, NULL, NULL);
    const bool shown = own != NULL && private_key != NULL && SSL_CTX_use_certificate(tls, own) == 1 &&
                       SSL_CTX_use_PrivateKey(tls, private_key) == 1;
    EVP_PKEY_free(private_key);
    X509_free(own);
    BIO_free(secret);
    BIO_free(text);
    return shown;
}

static bool name(SSL_CTX *tls, const char *host)
{
    X509_VERIFY_PARAM *wanted = SSL_CTX_get0_param(tls);
    return X509_VERIFY_PARAM_set1_ip_asc(wanted, host) == 1 || X509_VERIFY_PARAM_set1_host(wanted, host, 0) == 1;
}

static SSL_CTX *make_tls(const tl_mqtt_session *session, const char *host)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    const tl_span ca = session->to.ca;
    bool fine = tls != NULL && SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) == 1;
    fine = fine && (ca.n > 0 ? tl_lws_trust(tls, ca) == 0 : SSL_CTX_set_default_verify_paths(tls) == 1);
    fine = fine && name(tls, host);
    fine = fine && (session->certificate.n == 0 || show(tls, session->certificate, session->key));
    ERR_clear_error();
    if (!fine) {
        SSL_CTX_free(tls);
        return NULL;
    }
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    return tls;
}

/* --- the connection's thread --- */

static void wake(const tl_mqtt_connection *c)
{
    const uint64_t one = 1;
    /* Full, it wakes as well. */
    while (write(c->woken, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static void turn(tl_mqtt_connection *c)
{
    struct pollfd files[2] = {{.fd = mosquitto_socket(c->client), .events = POLLIN}, {.fd = c->woken, .events = POLLIN}};
    uint64_t count;
    if (mosquitto_want_write(c->client)) {
        files[0].events |= POLLOUT;
    }
    if (files[0].fd < 0 || (poll(files, 2, LOOK_MS) < 0 && errno != EINTR)) {
        end(c, "the connection broke");
        return;
    }
    if (files[1].revents != 0 && read(c->woken, &count, sizeof count) < 0) {
        end(c, "the connection broke");
    }
    if ((files[0].revents & POLLIN) != 0 && mosquitto_loop_read(c->client, 1) != MOSQ_ERR_SUCCESS) {
        end(c, c->connected ? "the broker closed" : "the broker refused");
    }
    if (!c->over && mosquitto_want_write(c->client) && mosquitto_loop_write(c->client, 1) != MOSQ_ERR_SUCCESS) {
        end(c, "the connection broke");
    }
    if (!c->over && mosquitto_loop_misc(c->client) != MOSQ_ERR_SUCCESS) {
        end(c, "the broker is silent");
    }
}

/* What was said leaves first, then DISCONNECT: the broker keeps the will to itself. */
static void say_goodbye(tl_mqtt_connection *c)
{
    struct pollfd file = {.fd = mosquitto_socket(c->client), .events = POLLOUT};
    mosquitto_disconnect(c->client);
    for (unsigned i = 0; i < LOOK_TICKS && file.fd >= 0 && mosquitto_want_write(c->client); i++) {
        if (poll(&file, 1, TL_MQTT_GOODBYE_MS / LOOK_TICKS) > 0 &&
            mosquitto_loop_write(c->client, 1) != MOSQ_ERR_SUCCESS) {
            return;
        }
    }
}

static void free_connection(tl_mqtt_connection *c)
{
    if (c->client != NULL) {
        mosquitto_destroy(c->client);
    }
    SSL_CTX_free(c->tls);
    if (c->woken >= 0) {
        close(c->woken);
    }
    free(c);
}

static void *run(void *of)
{
    tl_mqtt_connection *c = of;
    tl_mqtt *m = c->owner;
    if (mosquitto_connect(c->client, c->to.host, c->to.port, c->keepalive_s) != MOSQ_ERR_SUCCESS) {
        end(c, "could not connect to the broker");
    }
    while (!c->over && !is_left(c)) {
        turn(c);
    }
    if (!c->over) {
        say_goodbye(c);
    }
    const tl_event lost = {.kind = TL_EVENT_MQTT_LOST, .why = c->why};
    pthread_mutex_lock(&m->lock);
    const bool told = !c->left;
    c->left = true;
    if (m->current == c) {
        m->current = NULL;
    }
    pthread_mutex_unlock(&m->lock);
    free_connection(c);
    if (told) {
        tl_queue_post_last(m->queue, &lost);
    }
    OPENSSL_thread_stop(); /* what it keeps for this thread, before anybody takes the thread for ended */
    pthread_mutex_lock(&m->lock);
    m->threads--;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* --- the core's side --- */

/* A C string of its own; NULL for none. */
static char *text_of(tl_span span)
{
    return span.n > 0 ? strndup((const char *)span.at, span.n) : NULL;
}

static bool prepare(tl_mqtt_connection *c, const tl_mqtt_session *session)
{
    char *id = text_of(session->client_id), *topic = text_of(session->will_topic);
    char *user = text_of(session->username), *password = text_of(session->password);
    bool fine = tl_lws_address_read(&c->to, &session->to) && id != NULL;
    c->client = fine ? mosquitto_new(id, true, c) : NULL;
    fine = c->client != NULL && mosquitto_threaded_set(c->client, true) == MOSQ_ERR_SUCCESS;
    fine = fine && (topic == NULL || mosquitto_will_set(c->client, topic, (int)session->will.n, session->will.at, 1,
                                                        false) == MOSQ_ERR_SUCCESS);
    fine = fine && (user == NULL || mosquitto_username_pw_set(c->client, user, password) == MOSQ_ERR_SUCCESS);
    if (fine && c->to.secure) {
        c->tls = make_tls(session, c->to.host);
        fine = c->tls != NULL && mosquitto_void_option(c->client, MOSQ_OPT_SSL_CTX, c->tls) == MOSQ_ERR_SUCCESS &&
               mosquitto_int_option(c->client, MOSQ_OPT_SSL_CTX_WITH_DEFAULTS, 0) == MOSQ_ERR_SUCCESS;
    }
    free(id);
    free(topic);
    free(user);
    free(password);
    return fine;
}

static tl_mqtt_connection *make(tl_mqtt *m, const tl_mqtt_session *session)
{
    tl_mqtt_connection *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->owner = m;
    c->keepalive_s = session->keepalive_s;
    c->woken = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->woken < 0 || !prepare(c, session)) {
        free_connection(c);
        return NULL;
    }
    mosquitto_connect_callback_set(c->client, on_connect);
    mosquitto_publish_callback_set(c->client, on_publish);
    mosquitto_message_callback_set(c->client, on_message);
    return c;
}

static void stop(void *with)
{
    tl_mqtt *m = with;
    pthread_mutex_lock(&m->lock);
    if (m->current != NULL) {
        m->current->left = true;
        wake(m->current);
        m->current = NULL;
        pthread_cond_broadcast(&m->changed);
    }
    pthread_mutex_unlock(&m->lock);
}

static bool start(void *with, const tl_mqtt_session *session)
{
    tl_mqtt *m = with;
    pthread_t thread;
    stop(m);
    tl_mqtt_connection *c = make(m, session);
    if (c == NULL) {
        return false;
    }
    pthread_mutex_lock(&m->lock);
    const bool started = pthread_create(&thread, NULL, run, c) == 0;
    if (started) {
        pthread_detach(thread);
        m->current = c;
        m->threads++;
    }
    pthread_mutex_unlock(&m->lock);
    if (!started) {
        free_connection(c);
    }
    return started;
}

static bool subscribe(void *with, tl_span topic)
{
    tl_mqtt *m = with;
    char *text = text_of(topic);
    pthread_mutex_lock(&m->lock);
    const bool said = text != NULL && m->current != NULL &&
                      mosquitto_subscribe(m->current->client, NULL, text, 1) == MOSQ_ERR_SUCCESS;
    if (said) {
        wake(m->current);
    }
    pthread_mutex_unlock(&m->lock);
    free(text);
    return said;
}

static uint32_t publish(void *with, tl_span topic, tl_span payload, uint8_t qos, bool retain)
{
    tl_mqtt *m = with;
    char *text = text_of(topic);
    int number = 0;
    pthread_mutex_lock(&m->lock);
    const bool said = text != NULL && m->current != NULL &&
                      mosquitto_publish(m->current->client, &number, text, (int)payload.n, payload.at, qos,
                                        retain) == MOSQ_ERR_SUCCESS;
    if (said) {
        wake(m->current);
    }
    pthread_mutex_unlock(&m->lock);
    free(text);
    return said ? (uint32_t)number : 0;
}

static void release(void *with, tl_span message)
{
    (void)message; /* there is one place */
    give_place_back(with);
}

void tl_mqtt_init(tl_mqtt *m, tl_queue *queue)
{
    memset(m, 0, sizeof *m);
    m->queue = queue;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->changed, NULL);
    m->port = (tl_port_mqtt){m, start, subscribe, publish, release, stop};
    mosquitto_lib_init();
}

void tl_mqtt_end(tl_mqtt *m)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1 + TL_MQTT_GOODBYE_MS / 1000;
    stop(m);
    pthread_mutex_lock(&m->lock);
    while (m->threads > 0 && pthread_cond_timedwait(&m->changed, &m->lock, &until) != ETIMEDOUT) {
    }
    pthread_mutex_unlock(&m->lock);
}
