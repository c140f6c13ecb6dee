/* Memory that outlives the process which uses it, because another holds its descriptor: memfd_create(2), mmap(2). */
#include "nexus_fuse.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Of what is a whole number in JavaScript. */
static const double BYTES_LIMIT = 9007199254740992.0;

/* Sparse: what is never touched costs nothing. */
napi_value nexus_memory_file(napi_env env, napi_callback_info info) {
  napi_value args[1];
  double bytes;
  if (!get_args(env, info, 1, args)) return NULL;
  if (napi_get_value_double(env, args[0], &bytes) != napi_ok || !(bytes >= 0 && bytes < BYTES_LIMIT)) {
    napi_throw_type_error(env, NULL, "bytes must be a number from 0 to 2^53");
    return NULL;
  }
  int fd = memfd_create("nexus", MFD_CLOEXEC);
  if (fd < 0) {
    throw_errno(env, errno, "memfd_create", NULL);
    return NULL;
  }
  if (ftruncate(fd, (off_t)bytes) == 0) return make_int(env, fd);
  throw_errno(env, errno, "ftruncate", NULL);
  close(fd);
  return NULL;
}

static void unmap(napi_env env, void *memory, void *bytes) {
  (void)env;
  munmap(memory, (size_t)(uintptr_t)bytes);
}

napi_value nexus_map_shared(napi_env env, napi_callback_info info) {
  napi_value args[1], buffer;
  int fd;
  if (!get_args(env, info, 1, args) || !get_int(env, args[0], &fd)) return NULL;
  off_t end = lseek(fd, 0, SEEK_END);
  if (end <= 0) {
    throw_errno(env, end < 0 ? errno : EINVAL, "lseek", NULL);
    return NULL;
  }
  size_t bytes = (size_t)end;
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    throw_errno(env, errno, "mmap", NULL);
    return NULL;
  }
  if (napi_create_external_arraybuffer(env, memory, bytes, unmap, (void *)(uintptr_t)bytes, &buffer) == napi_ok) return buffer;
  munmap(memory, bytes);
  throw_errno(env, ENOMEM, "mmap", NULL);
  return NULL;
}

/* The kernel kills this process when the thread that started it ends. A parent that has gone already is seen by its pid. */
napi_value nexus_die_with_parent(napi_env env, napi_callback_info info) {
  napi_value args[1];
  int parent;
  if (!get_args(env, info, 1, args) || !get_int(env, args[0], &parent)) return NULL;
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) throw_errno(env, errno, "prctl", NULL);
  else if (getppid() != parent) raise(SIGKILL);
  return NULL;
}
