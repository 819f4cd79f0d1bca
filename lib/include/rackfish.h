/*
 * librackfish: what a program links to become a domain of a Rackfish machine.
 *
 *     #include <rackfish.h>
 *
 *     int main(void)
 *     {
 *         if (rf_init(rf_deadline_ms(5000)) != RF_OK)
 *             return 1;
 *         ...
 *         rf_finish();
 *     }
 *
 * The rules that hold for every function here:
 *
 *   threads     The library belongs to the one host thread that called rf_init(). User-level threads
 *               (rf_thread_*) run on that thread and may call everything. Other host threads may call
 *               only what is marked "any thread". After fork() the child must not call the library.
 *   blocking    A call with a `deadline_ns` may block, and blocks only the calling user-level thread;
 *               without one it never blocks. Deadlines are absolute times of rf_now_ns(), RF_NEVER for
 *               none; a deadline in the past makes a single try. When it passes the answer is
 *               RF_ERR_TIMEOUT and nothing has been done, unless the function says otherwise.
 *   errors      Functions return RF_OK or one code of <rackfish/error.h>; outputs are written only on
 *               RF_OK. rf_reason() has one line on the last failure.
 *   ownership   Buffers passed in stay the caller's and are not looked at after return. Handles belong to
 *               the caller until the close, destroy or finish named beside them; rf_finish() ends all
 *               that are left.
 *   progress    The library works inside its calls: a program that calls nothing takes no messages.
 *               Incoming connections, replies and deaths are looked at whenever some thread blocks, polls
 *               a wait set or yields.
 *   C++         Everything has C linkage.
 */
#ifndef RACKFISH_H
#define RACKFISH_H

#include "rackfish/api.h"
#include "rackfish/error.h"
#include "rackfish/types.h"
#include "rackfish/life.h"
#include "rackfish/channel.h"
#include "rackfish/stream.h"
#include "rackfish/waitset.h"
#include "rackfish/thread.h"
#include "rackfish/domain.h"
#include "rackfish/machine.h"
#include "rackfish/registry.h"

#endif
