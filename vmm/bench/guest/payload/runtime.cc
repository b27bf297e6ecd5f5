// SPDX-License-Identifier: GPL-2.0-or-later
// What compilers call without being asked to.
#include <cstddef>
#include <cstdint>

extern "C" {
void* memcpy(void* target, const void* source, size_t size_bytes);
void* memmove(void* target, const void* source, size_t size_bytes);
void* memset(void* target, int value, size_t size_bytes);
int memcmp(const void* one, const void* other, size_t size_bytes);
}

void* memcpy(void* target, const void* source, size_t size_bytes) {
  void* at = target;
  __asm__ volatile("rep movsb" : "+D"(at), "+S"(source), "+c"(size_bytes) : : "memory");
  return target;
}

void* memset(void* target, int value, size_t size_bytes) {
  void* at = target;
  __asm__ volatile("rep stosb" : "+D"(at), "+c"(size_bytes) : "a"(value) : "memory");
  return target;
}

void* memmove(void* target, const void* source, size_t size_bytes) {
  auto* to = static_cast<volatile uint8_t*>(target);
  const auto* from = static_cast<const uint8_t*>(source);
  if (target <= source) return memcpy(target, source, size_bytes);
  while (size_bytes-- != 0) to[size_bytes] = from[size_bytes];
  return target;
}

int memcmp(const void* one, const void* other, size_t size_bytes) {
  const auto* left = static_cast<const volatile uint8_t*>(one);
  const auto* right = static_cast<const volatile uint8_t*>(other);
  for (size_t i = 0; i < size_bytes; ++i)
    if (left[i] != right[i]) return left[i] < right[i] ? -1 : 1;
  return 0;
}
