"""What tests share: real servers, certificates, tokens, traffic."""
