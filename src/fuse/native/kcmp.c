/* kcmp(2), for which glibc has no wrapper. */
#include "nexus_fuse.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* KCMP_FILES of linux/kcmp.h: do two tasks have one table of descriptors? */
#define COMPARE_FILES 2

napi_value nexus_shares_descriptors(napi_env env, napi_callback_info info) {
  napi_value args[2], result;
  int a, b;
  if (!get_args(env, info, 2, args) || !get_int(env, args[0], &a) || !get_int(env, args[1], &b)) return NULL;
  /* 0 means the same; 1 and 2 order them; -1 is an error, of which nothing follows. */
  bool same = syscall(SYS_kcmp, (pid_t)a, (pid_t)b, COMPARE_FILES, 0UL, 0UL) == 0;
  return napi_get_boolean(env, same, &result) == napi_ok ? result : NULL;
}
