"""Admission policies: rules and mutations written as expressions (CEL), and the match conditions of webhooks.

`expressions` gives expressions what they may look at, `bindings` finds the policies of a write and their parameters,
`validating` judges by them, `mutating` changes objects by them, `status` tells whether their expressions make sense.
"""
