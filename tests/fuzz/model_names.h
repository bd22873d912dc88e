/* The model implements the library's interface under names of its own, so
 * that both can be in one program: program.c is compiled once for each.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FUZZ_MODEL_NAMES_H
#define FUZZ_MODEL_NAMES_H

#ifdef FUZZ_MODEL
#define greenlet_new model_new
#define greenlet_switch model_switch
#define greenlet_throw model_throw
#define greenlet_kill model_kill
#define greenlet_ref model_ref
#define greenlet_unref model_unref
#define greenlet_drain model_drain
#define greenlet_current model_current
#define greenlet_main model_main
#define greenlet_parent model_parent
#define greenlet_set_parent model_set_parent
#define greenlet_thread_configure model_thread_configure
#define greenlet_thread_shutdown model_thread_shutdown
#define greenlet_get_state model_get_state
#define greenlet_is_main model_is_main
#define greenlet_user_data model_user_data
#define greenlet_set_user_data model_set_user_data
#define greenlet_name model_name
#define greenlet_set_name model_set_name
#define greenlet_read_stack model_read_stack
#define greenlet_walk model_walk
#define greenlet_key_create model_key_create
#define greenlet_local_get model_local_get
#define greenlet_local_set model_local_set
#define greenlet_set_tracer model_set_tracer
#define greenlet_set_hooks model_set_hooks
#define greenlet_set_check_level model_set_check_level
#define run_program run_program_on_model
#else
#define run_program run_program_on_library
#endif

#include "greenlet.h"

#endif
