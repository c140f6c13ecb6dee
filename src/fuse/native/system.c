/* Two system calls that Node has no name for: posix_fadvise(2), and getsockopt(2) of SO_PEERCRED. */
#include "nexus_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

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
