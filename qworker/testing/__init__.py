"""What tests of qworker, of a broker and of an application need."""
