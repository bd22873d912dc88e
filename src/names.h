/* Internal names that cross files, prefixed, so that a program linked with
 * libgreenlet.a meets no other symbols than greenlet_*. Used by C and by
 * assembly.
 *
 * SPDX-License-Identifier: MIT */
#ifndef GREENLET_NAMES_H
#define GREENLET_NAMES_H

#define core_self greenlet_core_self
#define core_before greenlet_core_before
#define core_nobody greenlet_core_nobody
#define core_threads greenlet_core_threads
#define core_threads_lock greenlet_core_threads_lock
#define core_moved greenlet_core_moved
#define core_adopt greenlet_core_adopt
#define core_refresh greenlet_core_refresh
#define core_drain greenlet_core_drain
#define core_enqueue greenlet_core_enqueue
#define core_unlock greenlet_core_unlock
#define core_unreferenced greenlet_core_unreferenced
#define core_unref_quietly greenlet_core_unref_quietly
#define core_hold greenlet_core_hold
#define core_let_go greenlet_core_let_go
#define core_commit_slow greenlet_core_commit_slow
#define core_after greenlet_core_after
#define core_finish greenlet_core_finish
#define core_fatal greenlet_core_fatal
#define core_switch greenlet_core_switch
#define core_transfer greenlet_core_transfer
#define core_kill greenlet_core_kill
#define core_thread_of greenlet_core_thread_of
#define core_last_reference greenlet_core_last_reference
#define core_no_thread greenlet_core_no_thread
#define core_shadow_stack greenlet_core_shadow_stack
#define core_hand_over greenlet_core_hand_over
#define core_merge greenlet_core_merge
#define core_free greenlet_core_free
#define core_side greenlet_core_side
#define core_link_foreign greenlet_core_link_foreign
#define core_unlink_foreign greenlet_core_unlink_foreign
#define core_run_destructors greenlet_core_run_destructors
#define core_add_counters greenlet_core_add_counters
#define core_all_counters greenlet_core_all_counters
#define core_label greenlet_core_label
#define core_find_own_stack greenlet_core_find_own_stack
#define config_number greenlet_config_number

#define slab_layout greenlet_slab_layout
#define slab_take greenlet_slab_take
#define slab_give greenlet_slab_give
#define slab_maker greenlet_slab_maker
#define slab_visit greenlet_slab_visit
#define slab_collect greenlet_slab_collect
#define slab_destroy greenlet_slab_destroy

#define memory_map greenlet_memory_map
#define memory_guard greenlet_memory_guard
#define memory_unmap greenlet_memory_unmap
#define memory_discard greenlet_memory_discard
#define memory_mapped greenlet_memory_mapped
#define memory_resident greenlet_memory_resident
#define memory_page greenlet_memory_page
#define memory_unmaps greenlet_memory_unmaps
#define memory_alloc greenlet_memory_alloc
#define memory_free greenlet_memory_free

#define overflow_thread greenlet_overflow_thread
#define overflow_thread_exit greenlet_overflow_thread_exit
#define overflow_wanted greenlet_overflow_wanted

#define trace_adopt greenlet_trace_adopt
#define trace_exit greenlet_trace_exit
#define trace_forked greenlet_trace_forked
#define trace_switch greenlet_trace_switch
#define trace_copy greenlet_trace_copy
#define trace_name greenlet_trace_name

#define check_configure greenlet_check_configure
#define check_switch greenlet_check_switch
#define check_arrived greenlet_check_arrived
#define check_readable greenlet_check_readable
#define check_extent greenlet_check_extent
#define check_ask greenlet_check_ask
#define check_hook greenlet_check_hook
#define check_report greenlet_check_report
#define crc32c greenlet_crc32c
#define crc32c_by_table greenlet_crc32c_by_table
#define debug_forking greenlet_debug_forking
#define debug_get greenlet_debug_get
#define debug_image greenlet_debug_image
#define debug_context greenlet_debug_context
#define debug_say_frames greenlet_debug_say_frames
#define debug_say_some_frames greenlet_debug_say_some_frames
#define debug_locate greenlet_debug_locate
#define say_flush greenlet_say_flush
#define say_text greenlet_say_text
#define say_hex greenlet_say_hex
#define say_dec greenlet_say_dec
#define strict_open greenlet_strict_open
#define strict_close greenlet_strict_close
#define strict_fault greenlet_strict_fault

#define stack_take greenlet_stack_take
#define stack_give greenlet_stack_give
#define stack_pool_destroy greenlet_stack_pool_destroy
#define stack_bounds greenlet_stack_bounds
#define stack_holds greenlet_stack_holds
#define stack_sound greenlet_stack_sound

#define slice_take_slow greenlet_slice_take_slow
#define slice_give_slow greenlet_slice_give_slow
#define slice_pool_destroy greenlet_slice_pool_destroy

#define backend_adopt greenlet_backend_adopt
#define backend_abandon greenlet_backend_abandon
#define backend_init greenlet_backend_init
#define backend_leave greenlet_backend_leave
#define backend_start greenlet_backend_start
#define backend_welcome greenlet_backend_welcome
#define backend_switch greenlet_backend_switch
#define backend_exit greenlet_backend_exit
#define backend_release greenlet_backend_release
#define backend_describe greenlet_backend_describe
#define backend_bounds greenlet_backend_bounds
#define backend_hop greenlet_backend_hop
#define backend_lane greenlet_backend_lane
#define backend_point greenlet_backend_point
#define backend_sound greenlet_backend_sound

#define arch_switch greenlet_arch_switch
#define arch_switch_copy greenlet_arch_switch_copy
#define arch_copy_prepare greenlet_arch_copy_prepare
#define arch_exchange greenlet_arch_exchange
#define arch_exchange_pays greenlet_arch_exchange_pays
#define arch_leave greenlet_arch_leave
#define arch_move greenlet_arch_move
#define arch_copy_fill greenlet_arch_copy_fill
#define arch_resume greenlet_arch_resume
#define arch_start greenlet_arch_start
#define arch_after greenlet_arch_after
#define arch_inline greenlet_inline_resume

#ifndef __ASSEMBLER__
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

#endif
