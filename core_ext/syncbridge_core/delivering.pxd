"""From pending events to Python objects. See delivering.pyx."""

from syncbridge_core.connections cimport Table


cdef int collect(Table *table, bint *busy, list found) except -1
