"""Generated from rls_conf.proto."""
