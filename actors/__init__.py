"""The Ray actors that host the other two packages: servers and master, links, supervision, the command line."""
