"""The GPO network on top of factors: it corrects what they predict."""
