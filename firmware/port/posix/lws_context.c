#include "lws_context.h"

#include <arpa/inet.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* libwebsockets counts its contexts and sets up OpenSSL's data without a lock. */
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static bool copied(char *to, size_t cap, tl_span text)
{
    if (text.n >= cap || memchr(text.at, 0, text.n) != NULL) {
        return false;
    }
    memcpy(to, text.at, text.n);
    to[text.n] = '\0';
    return true;
}

/* Other names may lead anywhere, so they do not count. */
static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    return strcmp(host, "localhost") == 0 || (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6));
}

static void write_authority(tl_lws_address *to)
{
    const bool v6 = strchr(to->host, ':') != NULL, usual = to->port == (to->secure ? 443 : 80);
    char port[8] = "";
    if (!usual) {
        snprintf(port, sizeof port, ":%u", to->port);
    }
    snprintf(to->authority, sizeof to->authority, "%s%s%s%s", v6 ? "[" : "", to->host, v6 ? "]" : "", port);
}

bool tl_lws_address_read(tl_lws_address *to, const tl_address *from)
{
    static const uint8_t root[] = {'/'};
    const tl_span path = from->path.n > 0 ? from->path : (tl_span){root, sizeof root};
    to->port = from->port;
    to->secure = from->secure;
    to->ca = from->ca;
    if (!copied(to->host, sizeof to->host, from->host) || !copied(to->path, sizeof to->path, path)) {
        return false;
    }
    write_authority(to);
    return to->secure || is_loopback(to->host);
}

int tl_lws_trust(void *ssl_context, tl_span ca)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ssl_context);
    BIO *text = ca.n > 0 ? BIO_new_mem_buf(ca.at, (int)ca.n) : NULL;
    int taken = 0;
    for (X509 *one = NULL; text != NULL && (one = PEM_read_bio_X509(text, NULL, NULL, NULL)) != NULL; taken++) {
        X509_STORE_add_cert(store, one);
        X509_free(one);
    }
    ERR_clear_error(); /* the end of the text is one */
    BIO_free(text);
    return taken > 0 ? 0 : -1;
}

static SSL_CTX *new_tls(const tl_lws_address *to)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    if (tls == NULL || !to->secure) {
        return tls;
    }
    if (to->ca.n > 0 ? tl_lws_trust(tls, to->ca) == 0 : SSL_CTX_set_default_verify_paths(tls) == 1) {
        return tls;
    }
    SSL_CTX_free(tls);
    return NULL;
}

bool tl_lws_begin(tl_lws *lws, const struct lws_protocols *protocols, const tl_lws_address *to, void *user)
{
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = protocols,
        .options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT,
        .gid = -1,
        .uid = -1,
        .user = user,
    };
    pthread_mutex_lock(&one_at_a_time);
    lws_set_log_level(0, NULL); /* what went wrong comes with the callbacks */
    lws->tls = info.provided_client_ssl_ctx = new_tls(to);
    lws->context = lws->tls != NULL ? lws_create_context(&info) : NULL;
    if (lws->context == NULL) {
        SSL_CTX_free(lws->tls);
    }
    pthread_mutex_unlock(&one_at_a_time);
    return lws->context != NULL;
}

void tl_lws_end(tl_lws *lws)
{
    pthread_mutex_lock(&one_at_a_time);
    lws_context_destroy(lws->context);
    SSL_CTX_free(lws->tls);
    pthread_mutex_unlock(&one_at_a_time);
}
