import knitter_common  # noqa: F401 before anything imports grpc
