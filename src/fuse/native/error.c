/* Errnos as JavaScript errors, and arguments out of JavaScript. */
#include "nexus_fuse.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static void set_string(napi_env env, napi_value object, const char *name, const char *text) {
  napi_value value;
  if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value) != napi_ok) return;
  napi_set_named_property(env, object, name, value);
}

void throw_errno(napi_env env, int error, const char *syscall, const char *detail) {
  char code[32], reason[128], text[1024];
  uv_err_name_r(-error, code, sizeof(code));
  uv_strerror_r(-error, reason, sizeof(reason));
  snprintf(text, sizeof(text), "%s: %s, %s%s%s", code, reason, syscall, detail ? " " : "", detail ? detail : "");

  napi_value message, value;
  if (napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) != napi_ok) return;
  if (napi_create_error(env, NULL, message, &value) != napi_ok) return;
  set_string(env, value, "code", code);
  set_string(env, value, "syscall", syscall);
  napi_set_named_property(env, value, "errno", make_int(env, -error));
  napi_throw(env, value);
}

bool get_args(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
  size_t given = count;
  if (napi_get_cb_info(env, info, &given, values, NULL, NULL) == napi_ok && given >= count) return true;
  napi_throw_type_error(env, NULL, "too few arguments");
  return false;
}

bool get_int(napi_env env, napi_value value, int *number) {
  double given;
  /* Node itself would take NaN and 2^32 for descriptor 0. */
  if (napi_get_value_double(env, value, &given) == napi_ok && given >= INT_MIN && given <= INT_MAX) {
    *number = (int)given;
    if (*number == given) return true;
  }
  napi_throw_type_error(env, NULL, "expected a whole number of 32 bits");
  return false;
}

bool get_bytes(napi_env env, napi_value value, void **bytes, size_t *length) {
  if (napi_get_buffer_info(env, value, bytes, length) == napi_ok) return true;
  napi_throw_type_error(env, NULL, "expected a buffer");
  return false;
}

bool get_array(napi_env env, napi_value value, napi_typedarray_type type, void **items, size_t *count) {
  bool is_array;
  napi_typedarray_type found;
  if (napi_is_typedarray(env, value, &is_array) == napi_ok && is_array &&
      napi_get_typedarray_info(env, value, &found, count, items, NULL, NULL) == napi_ok && found == type)
    return true;
  napi_throw_type_error(env, NULL, "expected another kind of typed array");
  return false;
}

bool get_handle(napi_env env, napi_value value, enum handle_kind kind, void **handle) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) == napi_ok && type == napi_external &&
      napi_get_value_external(env, value, handle) == napi_ok && *(enum handle_kind *)*handle == kind)
    return true;
  napi_throw_type_error(env, NULL, kind == HANDLE_WATCH ? "expected a watch" : "expected a notifier");
  return false;
}

char *get_string(napi_env env, napi_value value) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) {
    napi_throw_type_error(env, NULL, "expected a string");
    return NULL;
  }
  char *text = malloc(length + 1);
  if (text == NULL) {
    throw_errno(env, ENOMEM, "malloc", NULL);
    return NULL;
  }
  napi_get_value_string_utf8(env, value, text, length + 1, &length);
  if (strlen(text) == length) return text;
  free(text);
  napi_throw_type_error(env, NULL, "a path or option must not hold a NUL byte");
  return NULL;
}

napi_value make_int(napi_env env, int number) {
  napi_value value = NULL;
  napi_create_int32(env, number, &value);
  return value;
}
