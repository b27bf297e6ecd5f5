// SPDX-License-Identifier: GPL-2.0-or-later
// Names for clang's thread-safety analysis; nothing at all for other compilers.
//
// Thread: any.
#pragma once

#if defined(__clang__)
#define SKIFF_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define SKIFF_THREAD_ANNOTATION(x)
#endif

#define SKIFF_CAPABILITY(name) SKIFF_THREAD_ANNOTATION(capability(name))
#define SKIFF_SCOPED_CAPABILITY SKIFF_THREAD_ANNOTATION(scoped_lockable)
#define SKIFF_GUARDED_BY(x) SKIFF_THREAD_ANNOTATION(guarded_by(x))
#define SKIFF_PT_GUARDED_BY(x) SKIFF_THREAD_ANNOTATION(pt_guarded_by(x))
#define SKIFF_REQUIRES(...) SKIFF_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define SKIFF_EXCLUDES(...) SKIFF_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define SKIFF_ACQUIRE(...) SKIFF_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define SKIFF_RELEASE(...) SKIFF_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define SKIFF_TRY_ACQUIRE(...) SKIFF_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define SKIFF_ASSERT_CAPABILITY(x) SKIFF_THREAD_ANNOTATION(assert_capability(x))
#define SKIFF_RETURN_CAPABILITY(x) SKIFF_THREAD_ANNOTATION(lock_returned(x))
#define SKIFF_NO_THREAD_SAFETY_ANALYSIS SKIFF_THREAD_ANNOTATION(no_thread_safety_analysis)
