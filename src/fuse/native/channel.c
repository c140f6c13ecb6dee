/* Requests in and replies out: called once a request, so every line here is on the hot path. */
#include "nexus_fuse.h"

#include <errno.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

/* Where a request goes: its bytes, and the time it was read at (seconds, nanoseconds). */
struct target {
  int fd;
  void *bytes;
  size_t length;
  double *stamp;
};

/* Of the monotonic clock, when this thread last read a request; a thread serves one at a time. */
static _Thread_local int64_t read_at;

static int64_t monotonic_nanos(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool get_target(napi_env env, const napi_value *args, struct target *target) {
  void *stamp;
  size_t stamp_count;
  if (!get_int(env, args[0], &target->fd)) return false;
  if (!get_bytes(env, args[1], &target->bytes, &target->length)) return false;
  if (!get_array(env, args[2], napi_float64_array, &stamp, &stamp_count)) return false;
  target->stamp = stamp;
  if (stamp_count >= 2) return true;
  napi_throw_type_error(env, NULL, "a stamp is a Float64Array of two");
  return false;
}

/* One request, 0 when none waits, or a negative errno. */
static int read_request(const struct target *target) {
  ssize_t length;
  /* ENOENT: the caller was interrupted while its request was copied out; the next one may wait already. */
  do length = read(target->fd, target->bytes, target->length);
  while (length < 0 && (errno == ENOENT || errno == EINTR));
  if (length < 0) return errno == EAGAIN ? 0 : -errno;

  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  target->stamp[0] = (double)now.tv_sec;
  target->stamp[1] = (double)now.tv_nsec;
  read_at = monotonic_nanos();
  return (int)length;
}

napi_value nexus_read(napi_env env, napi_callback_info info) {
  napi_value args[3];
  struct target target;
  if (!get_args(env, info, 3, args) || !get_target(env, args, &target)) return NULL;
  return make_int(env, read_request(&target));
}

/* Lets the other hyperthread run, and keeps us off the lock that a caller needs to queue its request. */
static void pause_cpu(void) {
  for (int i = 0; i < 8; i++) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }
}

napi_value nexus_poll(napi_env env, napi_callback_info info) {
  napi_value args[4];
  struct target target;
  int spin_micros;
  if (!get_args(env, info, 4, args) || !get_target(env, args, &target) || !get_int(env, args[3], &spin_micros)) return NULL;

  int result = read_request(&target);
  if (result != 0) return make_int(env, result);
  int64_t deadline = monotonic_nanos() + (int64_t)spin_micros * 1000;
  while (result == 0 && monotonic_nanos() < deadline) {
    pause_cpu();
    result = read_request(&target);
  }
  return make_int(env, result);
}

napi_value nexus_reply(napi_env env, napi_callback_info info) {
  napi_value args[3];
  int fd, length;
  void *bytes;
  size_t size;
  if (!get_args(env, info, 3, args) || !get_int(env, args[0], &fd)) return NULL;
  if (!get_bytes(env, args[1], &bytes, &size) || !get_int(env, args[2], &length)) return NULL;
  if (length < 0 || (size_t)length > size) return make_int(env, -EINVAL);

  ssize_t written;
  do written = write(fd, bytes, (size_t)length);
  while (written < 0 && errno == EINTR);
  if (written < 0) return make_int(env, -errno);
  napi_value micros;
  if (napi_create_double(env, (double)(monotonic_nanos() - read_at) / 1000, &micros) != napi_ok) return NULL;
  return micros;
}
