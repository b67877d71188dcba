#include <stdio.h>
int main(void) { puts("version " VERSION); return 0; }
