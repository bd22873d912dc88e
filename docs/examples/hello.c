/* A generator in twenty lines: a greenlet that yields numbers without end
 * until its consumer has had enough. SPDX-License-Identifier: MIT */
#include <greenlet.h>
#include <stdint.h>
#include <stdio.h>

static greenlet_message fibonacci(void *consumer) {
    greenlet_message m = {NULL, 0};
    for (intptr_t a = 0, b = 1, next; m.status == 0; a = b, b = next) {
        next = a + b;
        m = greenlet_switch(consumer, (void *)a); /* yield a */
    }
    puts("asked to end");
    return m; /* GREENLET_EXIT: unwind and die */
}

int main(void) {
    greenlet *g = greenlet_new(fibonacci, NULL);
    for (int i = 0; i < 10; i++)
        printf("%d\n",
               (int)(intptr_t)greenlet_switch(g, greenlet_main()).value);
    greenlet_unref(g); /* the last reference: throws GREENLET_EXIT */
    return 0;
}
