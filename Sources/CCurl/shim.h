// libcurl's setters and getters are variadic C functions, which Swift cannot call:
// each signature that Fetch needs has a typed wrapper here.
#include <curl/curl.h>
// What curl_multi_socket_action is driven with; Swift's own module of glibc has neither.
#include <sys/epoll.h>
#include <sys/eventfd.h>

static inline CURLcode uw_easy_setopt_long(CURL *handle, CURLoption option, long value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode uw_easy_setopt_off(CURL *handle, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode uw_easy_setopt_string(CURL *handle, CURLoption option, const char *value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode uw_easy_setopt_pointer(CURL *handle, CURLoption option, void *value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode uw_easy_setopt_list(CURL *handle, CURLoption option, struct curl_slist *value) {
    return curl_easy_setopt(handle, option, value);
}

// Copies the bytes: the caller's may go at once.
static inline CURLcode uw_easy_setopt_blob(CURL *handle, CURLoption option, const void *bytes, size_t count) {
    struct curl_blob blob = {(void *)bytes, count, CURL_BLOB_COPY};
    return curl_easy_setopt(handle, option, &blob);
}

// What a write callback returns to be called again later, with the same bytes (CURLOPT_WRITEFUNCTION).
static inline size_t uw_write_pause(void) { return CURL_WRITEFUNC_PAUSE; }

static inline CURLcode uw_easy_continue(CURL *handle) { return curl_easy_pause(handle, CURLPAUSE_CONT); }

typedef size_t (*uw_data_callback)(char *data, size_t size, size_t count, void *context);

static inline CURLcode uw_easy_setopt_data(CURL *handle, CURLoption option, uw_data_callback value) {
    return curl_easy_setopt(handle, option, value);
}

static inline CURLcode uw_easy_getinfo_long(CURL *handle, CURLINFO info, long *value) {
    return curl_easy_getinfo(handle, info, value);
}

static inline CURLcode uw_easy_getinfo_off(CURL *handle, CURLINFO info, curl_off_t *value) {
    return curl_easy_getinfo(handle, info, value);
}

static inline CURLcode uw_easy_getinfo_pointer(CURL *handle, CURLINFO info, void **value) {
    return curl_easy_getinfo(handle, info, value);
}

static inline CURLMcode uw_multi_setopt_long(CURLM *multi, CURLMoption option, long value) {
    return curl_multi_setopt(multi, option, value);
}

typedef int (*uw_socket_callback)(CURL *easy, curl_socket_t socket, int what, void *context, void *known);

static inline CURLMcode uw_multi_setopt_socket(CURLM *multi, void *context, uw_socket_callback callback) {
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, context);
    return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, callback);
}

typedef int (*uw_timer_callback)(CURLM *multi, long timeout_ms, void *context);

static inline CURLMcode uw_multi_setopt_timer(CURLM *multi, void *context, uw_timer_callback callback) {
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, context);
    return curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, callback);
}

/// The result of the transfer that a CURLMSG_DONE message tells of: the C union has no name that Swift sees.
static inline CURLcode uw_message_result(const CURLMsg *message) {
    return message->data.result;
}
