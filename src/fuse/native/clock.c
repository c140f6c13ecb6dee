/* Wakes at a time of the wall clock, and when somebody sets that clock: timerfd_create(2). */
#include "nexus_fuse.h"

#include <errno.h>
#include <stdint.h>
#include <sys/timerfd.h>
#include <unistd.h>

napi_value nexus_clock_timer(napi_env env, napi_callback_info info) {
  (void)info;
  napi_value result;
  int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
  if (fd < 0) {
    throw_errno(env, errno, "timerfd_create", NULL);
    return NULL;
  }
  if (napi_create_int32(env, fd, &result) != napi_ok) {
    close(fd);
    return NULL;
  }
  return result;
}

/*
 * The kernel cancels an absolute timer on CLOCK_REALTIME when the clock jumps (settimeofday, NTP's step, the end of a suspend),
 * if it is asked to: the descriptor becomes readable, and a read says ECANCELED. A time of 0 disarms.
 */
napi_value nexus_arm_clock_timer(napi_env env, napi_callback_info info) {
  napi_value args[3];
  int fd;
  int64_t seconds, nanos;
  if (!get_args(env, info, 3, args) || !get_int(env, args[0], &fd)) return NULL;
  if (napi_get_value_int64(env, args[1], &seconds) != napi_ok || napi_get_value_int64(env, args[2], &nanos) != napi_ok) {
    napi_throw_type_error(env, NULL, "seconds and nanoseconds are numbers");
    return NULL;
  }
  struct itimerspec at = {.it_value = {.tv_sec = seconds, .tv_nsec = nanos}};
  if (timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &at, NULL) != 0)
    throw_errno(env, errno, "timerfd_settime", NULL);
  return NULL;
}

/* 1: its time has come; 0: not yet; -ECANCELED: the clock was set; or another negative errno. */
napi_value nexus_read_clock_timer(napi_env env, napi_callback_info info) {
  napi_value args[1], result;
  int fd;
  uint64_t times;
  if (!get_args(env, info, 1, args) || !get_int(env, args[0], &fd)) return NULL;
  ssize_t count;
  do count = read(fd, &times, sizeof(times));
  while (count < 0 && errno == EINTR);
  int value = count > 0 ? 1 : errno == EAGAIN ? 0 : -errno;
  return napi_create_int32(env, value, &result) == napi_ok ? result : NULL;
}
