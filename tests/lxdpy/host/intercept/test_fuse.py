from lxdpy.host.intercept.fuse import words


def test_flags_and_data_of_the_call_are_the_programs_options() -> None:
    assert words("fuse2fs", "/dev/a", "/mnt", 1 | 8 | 1 << 25, "allow_other") == [
        "fuse2fs", "/dev/a", "/mnt", "-o", "allow_other,ro,noexec",
    ]  # fmt: skip
    assert words("/bin/x", "a", "b", 0, "") == ["/bin/x", "a", "b"]
