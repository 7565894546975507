"""A token kind whose annotations are the codes themselves, without settings, for tests that add what they are about."""

from llava_aurora.tokens.kind import TokenKind


class PlainKind(TokenKind):
    def encode(self, annotation):
        return list(annotation)

    def decode(self, codes):
        return tuple(codes)

    def draw(self, annotations, image):
        return image

    def settings(self):
        return {}

    @classmethod
    def from_settings(cls, settings, folder):
        return cls()
