/* Wakes JavaScript when a request waits: a uv_poll on the environment's own loop. */
#include "nexus_fuse.h"

#include <errno.h>
#include <stdlib.h>
#include <uv.h>

/*
 * Owned twice: by the loop until the handle is closed, and by the JavaScript value until it is
 * collected. The last to let go frees it.
 */
struct watch {
  enum handle_kind kind;
  uv_poll_t poll;
  napi_env env;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle hook;
  int owners;
};

static void release(struct watch *watch) {
  if (--watch->owners == 0) free(watch);
}

static void on_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  release(data);
}

static void on_closed(uv_handle_t *handle) {
  struct watch *watch = handle->data;
  napi_remove_async_cleanup_hook(watch->hook);
  release(watch);
}

/* Ends the watch; the second call and later ones do nothing. */
static void close_watch(struct watch *watch) {
  if (uv_is_closing((uv_handle_t *)&watch->poll)) return;
  napi_async_destroy(watch->env, watch->context);
  napi_delete_reference(watch->env, watch->callback);
  uv_close((uv_handle_t *)&watch->poll, on_closed);
}

static void on_environment_end(napi_async_cleanup_hook_handle hook, void *data) {
  (void)hook;
  close_watch(data);
}

/* An exception of the callback has no caller to go to: it is an uncaught exception. */
static void raise_uncaught(napi_env env) {
  napi_value error;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

/*
 * After an unmount the kernel reports POLLERR: libuv stops the handle and calls with a status;
 * JavaScript learns the reason (ENODEV) from its next read.
 */
static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)status;
  (void)events;
  struct watch *watch = poll->data;
  napi_env env = watch->env;
  napi_handle_scope scope;
  napi_value receiver, callback;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_get_global(env, &receiver);
  napi_get_reference_value(env, watch->callback, &callback);
  napi_status called = napi_make_callback(env, watch->context, receiver, callback, 0, NULL, NULL);
  if (called == napi_pending_exception) raise_uncaught(env);
  napi_close_handle_scope(env, scope);
}

/* Makes the watch on the loop: from here on only close_watch ends it. Returns 0 or an errno. */
static int start_poll(struct watch *watch, int fd, bool keep_alive) {
  uv_loop_t *loop;
  if (napi_get_uv_event_loop(watch->env, &loop) != napi_ok) return EINVAL;
  int error = uv_poll_init(loop, &watch->poll, fd);
  if (error != 0) return -error;
  watch->poll.data = watch;
  watch->owners = 1;
  napi_add_async_cleanup_hook(watch->env, on_environment_end, watch, &watch->hook);
  uv_poll_start(&watch->poll, UV_READABLE, on_readable);
  if (!keep_alive) uv_unref((uv_handle_t *)&watch->poll);
  return 0;
}

/* Keeps the callback alive and names it for async_hooks. */
static void keep_callback(napi_env env, napi_value callback, struct watch *watch) {
  napi_value name;
  napi_create_string_utf8(env, "nexus:channel", NAPI_AUTO_LENGTH, &name);
  napi_async_init(env, NULL, name, &watch->context);
  napi_create_reference(env, callback, 1, &watch->callback);
}

static bool get_function(napi_env env, napi_value value) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) == napi_ok && type == napi_function) return true;
  napi_throw_type_error(env, NULL, "expected a function");
  return false;
}

napi_value nexus_watch(napi_env env, napi_callback_info info) {
  napi_value args[3], external;
  int fd;
  bool keep_alive;
  if (!get_args(env, info, 3, args) || !get_int(env, args[0], &fd) || !get_function(env, args[1])) return NULL;
  if (napi_get_value_bool(env, args[2], &keep_alive) != napi_ok) {
    napi_throw_type_error(env, NULL, "expected true or false");
    return NULL;
  }
  struct watch *watch = calloc(1, sizeof(*watch));
  if (watch == NULL) {
    throw_errno(env, ENOMEM, "malloc", NULL);
    return NULL;
  }
  watch->kind = HANDLE_WATCH;
  watch->env = env;
  int error = start_poll(watch, fd, keep_alive);
  if (error != 0) {
    free(watch);
    throw_errno(env, error, "uv_poll_init", NULL);
    return NULL;
  }
  keep_callback(env, args[1], watch);
  if (napi_create_external(env, watch, on_collected, NULL, &external) != napi_ok) {
    close_watch(watch);
    return NULL;
  }
  watch->owners++;
  return external;
}

napi_value nexus_unwatch(napi_env env, napi_callback_info info) {
  napi_value args[1];
  void *watch;
  if (get_args(env, info, 1, args) && get_handle(env, args[0], HANDLE_WATCH, &watch)) close_watch(watch);
  return NULL;
}
