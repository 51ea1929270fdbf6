"""Of tasks that work on one thing, one failure tells enough."""


def first_error(group: BaseException) -> BaseException:
    """The first error inside nested groups; an error that is no group is itself."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
