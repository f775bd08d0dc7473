"""Generated code of our own few protobuf messages, checked in so that installing needs no compiler."""
