/* Writes to the device's files, each a step that a test can cut the power at.
 *
 * A cut ends the process at once: of the write that it meets a part is done, and of what was written to that file
 * since its last sync a part is lost, as on a disk that lies about nothing but promises nothing either.
 */
#ifndef TOWLINE_DISK_H
#define TOWLINE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TL_DISK_CUT_EXIT 86 /* exit code of a process whose power was cut; no other end has it */

/* Cuts at the step of this number, from 1, counted from now; 0: never. */
void tl_disk_cut_at(uint64_t step);
/* Steps since then: what a run without a cut needed. */
uint64_t tl_disk_steps(void);
/* Whether the power goes at this step. Whoever is told so does a part of his work and calls `tl_disk_cut`. */
bool tl_disk_step(void);
/* 32 bits that depend on the step alone: how much of a step is done when the power goes. */
uint32_t tl_disk_chance(void);
_Noreturn void tl_disk_cut(void);

/* All of it at this place, or false. Not durable before `tl_disk_sync`. */
bool tl_disk_write(int file, off_t at, const void *bytes, size_t n);
bool tl_disk_sync(int file);
/* Durable when it says true: the folder is synced as well. */
bool tl_disk_rename(int folder, const char *from, const char *to);
/* Writes a whole file of this folder anew: whatever happens, the old content stands there, or the new. Mode 0600. */
bool tl_disk_replace(int folder, const char *name, const void *bytes, size_t n);

#endif
