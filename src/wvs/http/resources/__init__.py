"""The resources of `/v1`: what each call takes and answers. Rules are the domain's; here they are only asked."""
