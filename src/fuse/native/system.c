/* Three system calls that Node has no name for: syncfs(2), posix_fadvise(2) and SO_PEERCRED. */
#include "nexus_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct sync_work {
  char *path;
  const char *syscall;
  int error;
  napi_deferred deferred;
  napi_async_work work;
};

/* On a thread of libuv's pool: writing everything out can take seconds. */
static void run_sync(napi_env env, void *data) {
  (void)env;
  struct sync_work *sync = data;
  sync->syscall = "open";
  int fd = open(sync->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    sync->error = errno;
    return;
  }
  sync->syscall = "syncfs";
  sync->error = syncfs(fd) == 0 ? 0 : errno;
  close(fd);
}

static void free_sync(napi_env env, struct sync_work *sync) {
  if (sync->work != NULL) napi_delete_async_work(env, sync->work);
  free(sync->path);
  free(sync);
}

static void on_synced(napi_env env, napi_status status, void *data) {
  struct sync_work *sync = data;
  napi_value result;
  if (status == napi_cancelled) sync->error = ECANCELED;
  if (sync->error == 0 && napi_get_undefined(env, &result) == napi_ok) {
    napi_resolve_deferred(env, sync->deferred, result);
  } else if ((result = make_errno(env, sync->error, sync->syscall, sync->path)) != NULL) {
    napi_reject_deferred(env, sync->deferred, result);
  }
  free_sync(env, sync);
}

static bool queue_sync(napi_env env, struct sync_work *sync, napi_value *promise) {
  napi_value name;
  if (napi_create_string_utf8(env, "nexus:syncfs", NAPI_AUTO_LENGTH, &name) != napi_ok) return false;
  if (napi_create_async_work(env, NULL, name, run_sync, on_synced, sync, &sync->work) != napi_ok) return false;
  if (napi_create_promise(env, &sync->deferred, promise) != napi_ok) return false;
  return napi_queue_async_work(env, sync->work) == napi_ok;
}

napi_value nexus_syncfs(napi_env env, napi_callback_info info) {
  napi_value args[1], promise;
  if (!get_args(env, info, 1, args)) return NULL;
  char *path = get_string(env, args[0]);
  if (path == NULL) return NULL;
  struct sync_work *sync = calloc(1, sizeof(*sync));
  if (sync == NULL) {
    free(path);
    throw_errno(env, ENOMEM, "malloc", NULL);
    return NULL;
  }
  sync->path = path;
  sync->syscall = "syncfs";
  if (queue_sync(env, sync, &promise)) return promise;
  free_sync(env, sync);
  throw_errno(env, ENOMEM, "syncfs", NULL);
  return NULL;
}

/* Of a longer stretch the kernel leaves out what exceeds its readahead and what the disk takes at once (force_page_cache_ra). */
#define ADVICE_BYTES (512 * 1024)

napi_value nexus_will_need(napi_env env, napi_callback_info info) {
  napi_value args[3];
  int fd;
  int64_t position, length;
  if (!get_args(env, info, 3, args) || !get_int(env, args[0], &fd)) return NULL;
  if (napi_get_value_int64(env, args[1], &position) != napi_ok || napi_get_value_int64(env, args[2], &length) != napi_ok) {
    napi_throw_type_error(env, NULL, "a position and a length are numbers");
    return NULL;
  }
  for (int64_t left = length; left > 0; left -= ADVICE_BYTES, position += ADVICE_BYTES)
    posix_fadvise(fd, position, left < ADVICE_BYTES ? left : ADVICE_BYTES, POSIX_FADV_WILLNEED);
  return NULL;
}

/* uids and pids are unsigned and may have their highest bit set. */
static void set_number(napi_env env, napi_value object, const char *name, double number) {
  napi_value value;
  if (napi_create_double(env, number, &value) == napi_ok) napi_set_named_property(env, object, name, value);
}

napi_value nexus_peer_credentials(napi_env env, napi_callback_info info) {
  napi_value args[1], object;
  int fd;
  if (!get_args(env, info, 1, args) || !get_int(env, args[0], &fd)) return NULL;
  struct ucred peer;
  socklen_t size = sizeof(peer);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    throw_errno(env, errno, "getsockopt", NULL);
    return NULL;
  }
  if (napi_create_object(env, &object) != napi_ok) return NULL;
  set_number(env, object, "pid", peer.pid);
  set_number(env, object, "uid", peer.uid);
  set_number(env, object, "gid", peer.gid);
  return object;
}
